"""FTP staging: files from and to ftp servers, with or without TLS, on the submit side or on the node."""

from __future__ import annotations

import ftplib
import socket
from dataclasses import dataclass
from typing import ClassVar

from flow_core.files import File
from flow_core.interfaces.staging import Transfer
from flow_staging.ftp_connection import FtpLogin, Session, finish
from flow_staging.ftp_listing import names_below
from flow_staging.ftp_pool import sessions
from flow_staging.ftp_session import FtpAddress, connected, is_missing, remote_of, translated
from flow_staging.ftp_upload import FtpUpload
from flow_staging.http_environment import pem_of
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import TransientTransferError
from flow_staging.transfer.limits import DEFAULT_LIMITS, SizeLimits
from flow_staging.transfer.method import InTaskStaging, PendingUpload, SeparateTaskStaging
from flow_staging.transfer.resume import Opened, Use, fetch, pin_of
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy, again
from flow_staging.transfer.verify import Remote

_CHUNK = 256 << 10  # bytes a read; only the magnitude matters
_SCHEMES = ("ftp", "ftps", "ftpes")


@dataclass(frozen=True, slots=True)
class FtpMover:
    """Moves by RETR and STOR: verified, resumed by REST, cached by date or digest."""

    lists_as_brought: ClassVar[bool] = True
    retry: RetryPolicy
    cache: CachePolicy | None
    limits: SizeLimits = DEFAULT_LIMITS
    ca: str | None = None

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be fetched."""
        return _SCHEMES

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return the schemes of URLs that can be sent to."""
        return _SCHEMES

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def pin(self, file: File) -> str:
        """Return the URL with what else decides what is brought, unless each task sees its own version."""
        return pin_of(file, self.cache, "")

    def bring_in(self, transfer: Transfer, control: Control) -> str:
        """Fetch one file; raises TransientTransferError or PermanentTransferError."""
        url, path = transfer.file.url, transfer.local_path
        address = FtpAddress.of(url, self.ca)
        # Private: a file that needs a login must not be readable by other users in the cache.
        use = Use.of(transfer, control, private=address.user != "anonymous")
        source = FtpSource(address, self.retry)
        return fetch(source, path, self.retry, control, url=url, cache=self.cache, use=use, limits=self.limits)

    def check_name(self, file: File) -> None:
        """Raise Final for a URL that names no file, or no directory."""
        FtpAddress.of_file(file, self.ca)

    def names(self, file: File, control: Control) -> dict[str, str]:
        """Return the version of each file below a directory.

        Raises TransientTransferError or PermanentTransferError.
        """
        address = FtpAddress.of_file(file, self.ca)

        def listed() -> dict[str, str]:
            """Ask once, on a session of the pool; ``again`` repeats it after a transient error."""
            with translated(), connected(address, self.retry) as ftp:
                return names_below(ftp, address.path, control)

        return again(self.retry, control, listed)

    def look(self, file: File, control: Control) -> str | None:
        """Return size and date or digest of a file, as far as the server says them.

        Raises TransientTransferError or PermanentTransferError.
        """
        address = FtpAddress.of(file.url, self.ca)
        with translated(), connected(address, self.retry) as ftp:
            control.check()
            remote = remote_of(ftp, address.path)
            if remote.size is not None:
                return f"{remote.size} {remote.validator}"
            return "" if is_missing(ftp, address.path) else None

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> PendingUpload:
        """Send one file under a temporary name; raises TransientTransferError or PermanentTransferError."""
        upload = FtpUpload(transfer, FtpAddress.of(transfer.file.url, self.ca), self.retry, control)
        upload.send()
        return upload

    def close(self) -> None:
        """Close the idle sessions with ftp servers."""
        sessions.close()


class FtpSource:
    """One ftp file as a source of bytes."""

    def __init__(self, address: FtpAddress, retry: RetryPolicy) -> None:
        self._address = address
        self._retry = retry

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the file, or its rest; see ``Source``."""
        with translated():
            ftp = sessions.take(self._address.login, self._retry)
            try:
                remote = remote_of(ftp, self._address.path)
                if known and not offset and remote.validator == known:
                    sessions.give(self._address.login, ftp)
                    return None
                start = offset if remote.validator and remote.validator == validator else 0
                return self._stream(ftp, remote, start)
            # The server has answered: the session is as good as before. After any other error its state is unknown.
            except ftplib.error_perm:
                sessions.give(self._address.login, ftp)
                raise
            except BaseException:
                ftp.close()
                raise

    def _stream(self, ftp: Session, remote: Remote, start: int) -> Opened:
        try:
            data = ftp.transfercmd(f"RETR {self._address.path}", start or None)
        except ftplib.error_perm as error:
            if not start or not str(error).startswith(("501", "502", "504")):
                raise
            start = 0  # no REST here
            data = ftp.transfercmd(f"RETR {self._address.path}")
        # Silence on it is bounded.
        data.settimeout(self._retry.stall_timeout_s)
        reader = _FtpReader(ftp, data, None if remote.size is None else remote.size - start, self._address.login)
        return Opened(remote, start, reader, reader.close)


class _FtpReader:
    """Reader of a data connection; at its end the answer of the server says whether it was the end of the file too."""

    def __init__(self, ftp: Session, data: socket.socket, size: int | None, login: FtpLogin) -> None:
        self._ftp = ftp
        self._data = data
        self._left = size
        self._login = login
        self._whole = False

    def __call__(self) -> bytes:
        """Return the next bytes; raises TransientTransferError."""
        with translated():
            chunk = self._data.recv(_CHUNK)
            if self._left is not None:
                self._left -= len(chunk)
            if not chunk:
                if self._left:  # a server that is gone says nothing more
                    raise TransientTransferError(f"the connection ended {self._left} bytes before the end of the file")
                finish(self._data)
                self._data.close()
                # The answer behind the data says whether that was all of the file.
                self._ftp.voidresp()
                self._whole = True
            return chunk

    def close(self) -> None:
        """Leave the server in the middle of the file, or keep the session at its end."""
        self._data.close()
        if self._whole:
            sessions.give(self._login, self._ftp)
        else:
            self._ftp.close()


class FTPSeparateTaskStaging(SeparateTaskStaging):
    """Moves ftp URLs on the submit side, for executors that share its file system. In the defaults.

    ``ftps:`` URLs mean TLS from the first byte on, at port 990 if none is given, ``ftpes:`` URLs TLS that the server is
    asked for (AUTH TLS), without which nothing goes on. Certificates of servers are verified.

    Args:
        ca_bundle: Certificates to trust beside the system's: a file, or the PEM text itself.
        retry: How often and how long to try.
        cache: What to keep beside the files of one working directory; None keeps nothing.
        threads: Files moved at once of one host; eight times as many of all hosts.
        limits: How large a file may be that comes in.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    moves = ("file", "directory", "pattern")

    def __init__(
        self,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        threads: int = 4,
        limits: SizeLimits = DEFAULT_LIMITS,
        ca_bundle: str | None = None,
    ) -> None:
        mover = FtpMover(retry, cache, limits, pem_of(ca_bundle))
        super().__init__(mover, threads=threads, name="ftp")
        self._call = call_of(self, retry=retry, cache=cache, threads=threads, limits=limits, ca_bundle=ca_bundle)

    def __repr__(self) -> str:
        return self._call


class FTPInTaskStaging(InTaskStaging):
    """Moves ftp URLs on the node, within the task. Needs flow-staging installed there.

    Options as of ``FTPSeparateTaskStaging``.
    """

    moves = ("file", "directory", "pattern")

    def __init__(
        self,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        cache: CachePolicy | None = DEFAULT_CACHE,
        limits: SizeLimits = DEFAULT_LIMITS,
        ca_bundle: str | None = None,
    ) -> None:
        super().__init__(FtpMover(retry, cache, limits, pem_of(ca_bundle)))
        self._call = call_of(self, retry=retry, cache=cache, limits=limits, ca_bundle=ca_bundle)

    def __repr__(self) -> str:
        return self._call
