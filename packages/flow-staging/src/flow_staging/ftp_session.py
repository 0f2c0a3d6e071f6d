"""Sessions with ftp servers: addresses, logins, errors, and what a server says of a file."""

from __future__ import annotations

import ftplib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from flow_staging.transfer.failures import Dropped, Refused
from flow_staging.transfer.retry import RetryPolicy
from flow_staging.transfer.verify import Digest, Remote

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


@contextmanager
def connected(address: Address, retry: RetryPolicy) -> Iterator[ftplib.FTP]:
    """Give a session, closed at the end; raises what ftplib raises."""
    ftp = connect(address, retry)
    try:
        yield ftp
    finally:
        ftp.close()


def connect(address: Address, retry: RetryPolicy) -> ftplib.FTP:
    """Log in, for files as they are; raises what ftplib raises."""
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
def translated() -> Iterator[None]:
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


def remote_of(ftp: ftplib.FTP, path: str) -> Remote:
    """Return what the server says of a file."""
    length = size(ftp, path)
    hashed = digest(ftp, path)
    if hashed is not None:
        return Remote(length, hashed, f"{hashed.algorithm}:{hashed.value.hex()}")
    date = changed(ftp, path)
    return Remote(length, None, f"{length}:{date}" if length is not None and date else "")


def size(ftp: ftplib.FTP, path: str) -> int | None:
    """Return the size of a file, or None if there is none or the server does not say."""
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def changed(ftp: ftplib.FTP, path: str) -> str:
    """Return when a file was last changed, by the server's clock, or nothing if it does not say."""
    try:
        return ftp.sendcmd(f"MDTM {path}")[4:].strip()
    except (ftplib.error_perm, ftplib.error_reply):
        return ""


def digest(ftp: ftplib.FTP, path: str) -> Digest | None:
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
