"""FTP addresses, logins and errors, and the queries for size, date and digest of a file."""

from __future__ import annotations

import ftplib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from flow_core.files import File, Glob
from flow_staging.ftp_connection import ENCODING, FtpLogin, Session
from flow_staging.ftp_pool import sessions
from flow_staging.ftp_tls import refused_by_tls
from flow_staging.transfer.failures import Final, PermanentTransferError, TransientTransferError
from flow_staging.transfer.retry import RetryPolicy
from flow_staging.transfer.verify import Digest, Remote

_HINTS = {
    "530": "the server refuses the login: put user:password@ into the URL",
    "532": "the server wants an account for that",
    "550": "there is no such file, or no right to it: check the URL",
    "552": "the server's disk or quota is full",
    "553": "the server does not allow that name",
}
# No further try of a task changes these.
_GONE = frozenset({"550", "553"})
_TLS_PORT = 990  # of ftps, as IANA has it
_HASHES = {"SHA-512": "sha512", "SHA-256": "sha256", "SHA-1": "sha1", "MD5": "md5"}
_OLD_HASHES = {"XSHA512": "sha512", "XSHA256": "sha256", "XSHA1": "sha1", "XMD5": "md5"}


@dataclass(frozen=True, slots=True)
class FtpAddress:
    """Server, login and path of an ftp URL.

    Login and path hold one character a byte, as ftplib sends them: names on servers are bytes, in any encoding.

    Attributes:
        host: Server.
        port: Its port.
        user: Login; anonymous where none is given.
        password: Password.
        path: Path as the server gets it: relative to the login's directory, absolute where the URL begins its path
            with ``/%2F`` (RFC 1738).
        scheme: ``ftp``; ``ftps`` for TLS from the first byte, ``ftpes`` for TLS that the server is asked for.
        ca: Certificates to trust beside the others, as PEM text.
    """

    host: str
    port: int
    user: str
    password: str
    path: str
    scheme: str = "ftp"
    ca: str | None = None

    @property
    def login(self) -> FtpLogin:
        """Return server and login, by which sessions are kept."""
        return FtpLogin(self.host, self.port, self.user, self.password, self.scheme, self.ca)

    @classmethod
    def of_file(cls, file: File, ca: str | None = None) -> FtpAddress:
        """Return the address of a file, of a directory, or of the directory before a pattern; raises Final."""
        return cls.of(file.base if isinstance(file, Glob) else file.url, ca, whole=file.kind != "file")

    @classmethod
    def of(cls, url: str, ca: str | None = None, *, whole: bool = False) -> FtpAddress:
        """Take an URL apart, which may name the directory of the login where all below one is meant (``whole``).

        Raises Final.
        """
        url = f"{url}/" if whole else url
        match = re.fullmatch(r"(ftp|ftps|ftpes)://([^/]*)/(.*)", url, re.IGNORECASE | re.DOTALL)
        if match is None:
            raise Final("an ftp URL has the form ftp://host/path/of/a/file")
        scheme = match[1].lower()
        login, _, server = match[2].rpartition("@")
        name, colon, secret = login.partition(":")
        try:
            parts = urlsplit(f"//{server}")
            port = parts.port or (_TLS_PORT if scheme == "ftps" else ftplib.FTP_PORT)
        except ValueError as error:
            raise Final(f"not an ftp URL: {error}") from error
        path = _bytes(match[3])
        path = path.rstrip("/") if whole else path
        user = _bytes(name) or "anonymous"
        password = _bytes(secret) if colon or name else "anonymous@"
        if not parts.hostname or parts.query or parts.fragment or not (path or whole) or path.endswith("/"):
            raise Final("an ftp URL has the form ftp://host/path/of/a/file")
        # A line break would begin a command of its own.
        if re.search(r"[\r\n\0]", path + user + password):
            raise Final("line breaks cannot be part of an ftp URL")
        return cls(parts.hostname, port, user, password, path, scheme, ca)


def _bytes(quoted: str) -> str:
    """Return the bytes that a part of a URL means, one character each."""
    return unquote_to_bytes(quoted.encode(errors="surrogateescape")).decode(ENCODING)


@contextmanager
def connected(address: FtpAddress, retry: RetryPolicy) -> Iterator[Session]:
    """Give a session, which is kept for others if nothing has failed; raises what ftplib raises."""
    session = sessions.take(address.login, retry)
    try:
        yield session
    except BaseException:
        session.close()
        raise
    sessions.give(address.login, session)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of ftplib and ssl into transient and permanent transfer errors."""
    try:
        yield
    except ftplib.error_perm as error:
        hint = _HINTS.get(str(error)[:3])
        said = f"the server answered {_text(error)}"
        refused = Final if str(error)[:3] in _GONE else PermanentTransferError
        raise refused(said if hint is None else f"{said}: {hint}") from error
    except ssl.SSLError as error:
        raise refused_by_tls(error) or TransientTransferError(f"the connection broke: {error}") from error
    except EOFError as error:
        raise TransientTransferError("the server closed the connection") from error
    except ftplib.Error as error:
        raise TransientTransferError(f"the server answered {_text(error)}") from error
    except OSError as error:
        raise TransientTransferError(f"the connection broke: {error}") from error


def _text(error: Exception) -> str:
    """Return the text of a server's answer, which is UTF-8 as a rule."""
    return str(error).encode(ENCODING, "replace").decode(errors="replace")


def remote_of(ftp: Session, path: str) -> Remote:
    """Return size and digest of a file from the server, or its size and date."""
    length = size(ftp, path)
    # A digest names the very bytes; a date only the time of the last change, to the second as a rule.
    hashed = digest(ftp, path)
    if hashed is not None:
        return Remote(length, hashed, f"{hashed.algorithm}:{hashed.value.hex()}")
    date = changed(ftp, path)
    return Remote(length, None, f"{length}:{date}" if length is not None and date else "")


def size(ftp: Session, path: str) -> int | None:
    """Return the size of a file, or None if there is none or the server does not say."""
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def is_missing(ftp: Session, path: str) -> bool:
    """Return whether a server surely has no such file: it says so when it is asked for the size."""
    try:
        ftp.size(path)
    except ftplib.error_perm as error:
        return str(error).startswith("550")
    return False


def changed(ftp: Session, path: str) -> str:
    """Return when a file was last changed, by the server's clock, or nothing if it does not say."""
    try:
        return ftp.sendcmd(f"MDTM {path}")[4:].strip()
    except (ftplib.error_perm, ftplib.error_reply):
        return ""


def features(ftp: Session) -> str:
    """Return the server's answer to FEAT, in capital letters; empty if it does not know that."""
    if ftp.features is None:
        ftp.features = ""  # also of a server that refuses to say
        with suppress(ftplib.error_perm, ftplib.error_temp, ftplib.error_reply):
            ftp.features = ftp.sendcmd("FEAT").upper()
    return ftp.features


def digest(ftp: Session, path: str) -> Digest | None:
    """Ask servers that know of digests: by HASH (draft-bryan-ftp-hash), or the older XSHA256 and its like."""
    said = features(ftp)
    try:
        if re.search(r"^ HASH ", said, re.MULTILINE):
            name, _range, value = ftp.sendcmd(f"HASH {path}")[4:].split(" ")[:3]
            return Digest(_HASHES[name.upper()], bytes.fromhex(value))
        for command, algorithm in _OLD_HASHES.items():
            if re.search(rf"^ {command}\b", said, re.MULTILINE):
                return Digest(algorithm, bytes.fromhex(ftp.sendcmd(f"{command} {path}")[4:].strip()))
    except (ftplib.error_perm, ftplib.error_temp, ftplib.error_reply, KeyError, ValueError):
        return None
    return None
