"""Files from and to ftp servers, on the submit side or on the node."""

from __future__ import annotations

import ftplib
import socket
from dataclasses import dataclass
from pathlib import Path

from flow_core.files import File
from flow_core.interfaces.staging import Transfer
from flow_staging.ftp_session import Address, connect, remote_of, translated
from flow_staging.ftp_upload import FtpUpload
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Dropped
from flow_staging.transfer.method import InTaskStaging, Sent, SeparateTaskStaging
from flow_staging.transfer.resume import Opened, fetch
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy
from flow_staging.transfer.verify import Remote

_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class FtpMover:
    """Moves by RETR and STOR: verified, resumed by REST, cached by date or digest."""

    retry: RetryPolicy
    cache: CachePolicy | None

    @property
    def schemes_in(self) -> tuple[str, ...]:
        """Return what comes in."""
        return ("ftp",)

    @property
    def schemes_out(self) -> tuple[str, ...]:
        """Return what goes out."""
        return ("ftp",)

    @property
    def timeout_s(self) -> float:
        """Return the longest time for one file."""
        return self.retry.timeout_s

    def bring_in(self, file: File, path: Path, control: Control) -> str:
        """Fetch one file; raises Dropped or Refused."""
        source = FtpSource(Address.of(file.url), self.retry)
        return fetch(source, path, self.retry, control, url=file.url, cache=self.cache)

    def send(self, transfer: Transfer, control: Control, *, alone: bool) -> Sent:
        """Send one file under a temporary name; raises Dropped or Refused."""
        upload = FtpUpload(transfer, Address.of(transfer.file.url), self.retry, control)
        upload.send()
        return upload


class FtpSource:
    """One ftp file as a source of bytes."""

    def __init__(self, address: Address, retry: RetryPolicy) -> None:
        self._address = address
        self._retry = retry

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the file, or its rest; see ``Source``."""
        with translated():
            ftp = connect(self._address, self._retry)
            try:
                remote = remote_of(ftp, self._address.path)
                if known and not offset and remote.validator == known:
                    ftp.close()
                    return None
                start = offset if remote.validator and remote.validator == validator else 0
                return self._stream(ftp, remote, start)
            except BaseException:
                ftp.close()
                raise

    def _stream(self, ftp: ftplib.FTP, remote: Remote, start: int) -> Opened:
        try:
            data = ftp.transfercmd(f"RETR {self._address.path}", start or None)
        except ftplib.error_perm as error:
            if not start or not str(error).startswith(("501", "502", "504")):
                raise
            start = 0  # no REST here
            data = ftp.transfercmd(f"RETR {self._address.path}")
        data.settimeout(self._retry.stall_timeout_s)
        reader = _Reader(ftp, data, None if remote.size is None else remote.size - start)
        return Opened(remote, start, reader, reader.close)


class _Reader:
    """Reads a data connection; at its end, hears from the server whether that was the file's end too."""

    def __init__(self, ftp: ftplib.FTP, data: socket.socket, size: int | None) -> None:
        self._ftp = ftp
        self._data = data
        self._left = size

    def __call__(self) -> bytes:
        """Return the next bytes; raises Dropped."""
        with translated():
            chunk = self._data.recv(_CHUNK)
            if self._left is not None:
                self._left -= len(chunk)
            if not chunk:
                if self._left:  # a server that is gone says nothing more
                    raise Dropped(f"the connection ended {self._left} bytes before the end of the file")
                self._data.close()
                self._ftp.voidresp()
            return chunk

    def close(self) -> None:
        """Leave the server, in the middle of the file or at its end."""
        self._data.close()
        self._ftp.close()


class FTPSeparateTaskStaging(SeparateTaskStaging):
    """Moves ftp URLs on the submit side, for executors that share its file system. In the defaults.

    Args:
        retry: How often and how long to try.
        cache: What to keep beside the files of one working directory; None keeps nothing.
        threads: Files moved at once.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(
        self, *, retry: RetryPolicy = DEFAULT_RETRY, cache: CachePolicy | None = DEFAULT_CACHE, threads: int = 4
    ) -> None:
        super().__init__(FtpMover(retry, cache), threads=threads, name="ftp")
        self._call = call_of(self, retry=retry, cache=cache, threads=threads)

    def __repr__(self) -> str:
        return self._call


class FTPInTaskStaging(InTaskStaging):
    """Moves ftp URLs on the node, within the task. Needs flow-staging installed there.

    Options as of ``FTPSeparateTaskStaging``.
    """

    def __init__(self, *, retry: RetryPolicy = DEFAULT_RETRY, cache: CachePolicy | None = DEFAULT_CACHE) -> None:
        super().__init__(FtpMover(retry, cache))
        self._call = call_of(self, retry=retry, cache=cache)

    def __repr__(self) -> str:
        return self._call
