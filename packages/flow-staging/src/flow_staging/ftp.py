"""Files from and to ftp servers, on the submit side or on the node."""

from __future__ import annotations

import ftplib
import posixpath
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flow_core.files import File
from flow_staging.transfer.cache import DEFAULT_CACHE, CachePolicy
from flow_staging.transfer.failures import Dropped, Refused, local_failure
from flow_staging.transfer.method import InTaskStaging, SeparateTaskStaging
from flow_staging.transfer.resume import Opened, fetch
from flow_staging.transfer.retry import DEFAULT_RETRY, Control, RetryPolicy, Tries
from flow_staging.transfer.verify import Checker, Digest, Remote

_CHUNK = 256 << 10
_HINTS = {
    "530": "the server refuses the login: put user:password@ into the URL",
    "532": "the server wants an account for that",
    "550": "there is no such file, or no right to it: check the URL",
    "552": "the server's disk or quota is full",
    "553": "the server does not allow that name",
}
_HASHES = {"SHA-512": "sha512", "SHA-256": "sha256", "SHA-1": "sha1", "MD5": "md5"}
_OLD_HASHES = {"XSHA512": "sha512", "XSHA256": "sha256", "XSHA1": "sha1", "XMD5": "md5"}


@dataclass(frozen=True, slots=True)
class Address:
    """What an ftp URL says.

    Attributes:
        host: Server.
        port: Its port.
        user: Login; anonymous where none is given.
        password: Password.
        path: Path as the server gets it: relative to the login's directory, absolute where the URL begins its path
            with ``/%2F`` (RFC 1738).
    """

    host: str
    port: int
    user: str
    password: str
    path: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take an URL apart; raises Refused."""
        try:
            parts = urlsplit(url)
            port = parts.port or ftplib.FTP_PORT
        except ValueError as error:
            raise Refused(f"not an ftp URL: {error}") from error
        path = unquote(parts.path[1:])
        user = unquote(parts.username or "anonymous")
        password = unquote(parts.password or ("" if parts.username else "anonymous@"))
        if not parts.hostname or not path or path.endswith("/"):
            raise Refused("an ftp URL has the form ftp://host/path/of/a/file")
        if re.search(r"[\r\n\0]", path + user + password):
            raise Refused("line breaks cannot be part of an ftp URL")
        return cls(parts.hostname, port, user, password, path)


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

    def bring_in(self, file: File, path: Path, control: Control) -> None:
        """Fetch one file; raises Dropped or Refused."""
        source = FtpSource(Address.of(file.url), self.retry)
        fetch(source, path, self.retry, control, url=file.url, cache=self.cache)

    def bring_out(self, path: Path, file: File, control: Control) -> None:
        """Send one file; raises Dropped or Refused."""
        _Upload(path, Address.of(file.url), self.retry, control).run()


class FtpSource:
    """One ftp file as a source of bytes."""

    def __init__(self, address: Address, retry: RetryPolicy) -> None:
        self._address = address
        self._retry = retry

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        """Ask for the file, or its rest; see ``Source``."""
        with _translated():
            ftp = _connect(self._address, self._retry)
            try:
                remote = _remote(ftp, self._address.path)
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
        with _translated():
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


class _Upload:
    """Sends one file under a temporary name in the same directory, and renames it when its size is right."""

    def __init__(self, path: Path, address: Address, retry: RetryPolicy, control: Control) -> None:
        self._path = path
        self._address = address
        self._retry = retry
        self._control = control
        self._temporary = posixpath.join(posixpath.dirname(address.path), f".flow-{secrets.token_hex(6)}.part")
        self._size = path.stat().st_size
        self._resumes = True

    def run(self) -> None:
        """Send; raises Dropped or Refused."""
        tries, reached, first = Tries(self._retry, self._control), 0, True
        try:
            while True:
                try:
                    self._try(first)
                    return
                except Dropped as error:
                    here = self._there() if self._resumes else 0
                    tries.failed(error, here - reached)
                    reached, first = max(reached, here), False
        except BaseException:
            self._clean_up()
            raise

    def _try(self, first: bool) -> None:
        with _translated(), _connected(self._address, self._retry) as ftp:
            offset = 0 if first or not self._resumes else _size(ftp, self._temporary) or 0
            offset = offset if offset <= self._size else 0
            with self._begin(ftp, offset) as data:
                data.settimeout(self._retry.stall_timeout_s)
                self._pour(data, offset)
            ftp.voidresp()
            self._check(ftp)
            self._rename(ftp)

    def _begin(self, ftp: ftplib.FTP, offset: int) -> socket.socket:
        try:
            return ftp.transfercmd(f"STOR {self._temporary}", offset or None)
        except ftplib.error_perm as error:
            code = str(error)[:3]
            if offset and code in ("501", "502", "504"):
                self._resumes = False
                return ftp.transfercmd(f"STOR {self._temporary}")
            if code not in ("550", "553") or not _make_directories(ftp, self._temporary):
                raise
            return ftp.transfercmd(f"STOR {self._temporary}")

    def _pour(self, data: socket.socket, offset: int) -> None:
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error
        with stream:
            stream.seek(offset)
            while chunk := stream.read(_CHUNK):
                data.sendall(chunk)
                self._control.check()

    def _check(self, ftp: ftplib.FTP) -> None:
        there = _size(ftp, self._temporary)
        if there is not None and there != self._size:
            raise Dropped(f"the server has {there} bytes of {self._size}")
        digest = _digest(ftp, self._temporary)
        if digest is None:
            return
        checker = Checker()
        checker.restart(Remote(self._size, digest))
        with self._path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                checker.update(chunk)
        try:
            checker.finish()
        except Dropped:
            self._resumes = False
            raise

    def _rename(self, ftp: ftplib.FTP) -> None:
        try:
            ftp.rename(self._temporary, self._address.path)
        except ftplib.error_perm:
            ftp.delete(self._address.path)  # a server that does not rename over an older file
            ftp.rename(self._temporary, self._address.path)

    def _there(self) -> int:
        try:
            with _connected(self._address, self._retry) as ftp:
                return _size(ftp, self._temporary) or 0
        except ftplib.all_errors:
            return 0

    def _clean_up(self) -> None:
        with suppress(*ftplib.all_errors), _connected(self._address, self._retry) as ftp:
            ftp.delete(self._temporary)


@contextmanager
def _connected(address: Address, retry: RetryPolicy) -> Iterator[ftplib.FTP]:
    ftp = _connect(address, retry)
    try:
        yield ftp
    finally:
        ftp.close()


def _connect(address: Address, retry: RetryPolicy) -> ftplib.FTP:
    ftp = ftplib.FTP(timeout=retry.connect_timeout_s)
    try:
        ftp.connect(address.host, address.port)
        ftp.login(address.user, address.password)
        ftp.voidcmd("TYPE I")
    except BaseException:
        ftp.close()
        raise
    return ftp


@contextmanager
def _translated() -> Iterator[None]:
    """Tell what may pass from what will not."""
    try:
        yield
    except ftplib.error_perm as error:
        hint = _HINTS.get(str(error)[:3])
        said = f"the server answered {error}"
        raise Refused(said if hint is None else f"{said}: {hint}") from error
    except EOFError as error:
        raise Dropped("the server closed the connection") from error
    except ftplib.Error as error:
        raise Dropped(f"the server answered {error}") from error
    except OSError as error:
        raise Dropped(f"the connection broke: {error}") from error


def _remote(ftp: ftplib.FTP, path: str) -> Remote:
    size = _size(ftp, path)
    digest = _digest(ftp, path)
    if digest is not None:
        return Remote(size, digest, f"{digest.algorithm}:{digest.value.hex()}")
    changed = _changed(ftp, path)
    return Remote(size, None, f"{size}:{changed}" if size is not None and changed else "")


def _size(ftp: ftplib.FTP, path: str) -> int | None:
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def _changed(ftp: ftplib.FTP, path: str) -> str:
    try:
        return ftp.sendcmd(f"MDTM {path}")[4:].strip()
    except (ftplib.error_perm, ftplib.error_reply):
        return ""


def _digest(ftp: ftplib.FTP, path: str) -> Digest | None:
    """Ask servers that know of digests: by HASH (draft-bryan-ftp-hash), or the older XSHA256 and its like."""
    try:
        features = ftp.sendcmd("FEAT").upper()
        if re.search(r"^ HASH ", features, re.MULTILINE):
            name, _range, value = ftp.sendcmd(f"HASH {path}")[4:].split(" ")[:3]
            return Digest(_HASHES[name.upper()], bytes.fromhex(value))
        for command, algorithm in _OLD_HASHES.items():
            if re.search(rf"^ {command}\b", features, re.MULTILINE):
                return Digest(algorithm, bytes.fromhex(ftp.sendcmd(f"{command} {path}")[4:].strip()))
    except (ftplib.error_perm, ftplib.error_temp, ftplib.error_reply, KeyError, ValueError):
        return None
    return None


def _make_directories(ftp: ftplib.FTP, path: str) -> bool:
    """Make what is missing of the directories above a path; False if none was."""
    made, above = False, posixpath.dirname(path)
    steps = [step for step in above.split("/") if step]
    for count in range(1, len(steps) + 1):
        with suppress(ftplib.error_perm):
            ftp.mkd(("/" if above.startswith("/") else "") + "/".join(steps[:count]))
            made = True
    return made


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


class FTPInTaskStaging(InTaskStaging):
    """Moves ftp URLs on the node, within the task. Needs flow-staging installed there.

    Options as of ``FTPSeparateTaskStaging``.
    """

    def __init__(self, *, retry: RetryPolicy = DEFAULT_RETRY, cache: CachePolicy | None = DEFAULT_CACHE) -> None:
        super().__init__(FtpMover(retry, cache))
