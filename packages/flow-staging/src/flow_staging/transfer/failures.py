"""Transfer errors: transient and permanent ones, and the StagingError that the user sees."""

from __future__ import annotations

import errno
import re
from urllib.parse import urlsplit, urlunsplit

from flow_core.errors import StagingError, WrongDigest
from flow_core.files import masked
from flow_core.interfaces.staging import Direction, Transfer

_LOCAL_HINTS = {
    errno.ENOSPC: "the disk is full; free space or set the executor's working_dir to a larger file system",
    errno.EDQUOT: "the disk quota is used up; free space or set the executor's working_dir elsewhere",
    errno.EROFS: "the file system is read-only; set the executor's working_dir to one that can be written",
    errno.EACCES: "permission denied; check the rights of the directory and of the executor's working_dir",
    errno.EPERM: "not permitted; a file of another user may be in its place, which only that user can replace",
    errno.ENOENT: "no such file or directory",
    errno.EISDIR: "it is a directory; only plain files are staged",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}


def printable(text: str) -> str:
    """Return a text in one line, with escapes for what is no printable character.

    Servers and names of files decide over parts of messages: they must neither write lines of logs nor tell terminals
    what to do.
    """
    if text.isprintable():
        return text
    text = re.sub(r"\s*\n\s*", " / ", text.strip())
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class TransientTransferError(Exception):
    """The transfer broke for a reason that may pass: it is worth resuming.

    Attributes:
        retry_after_s: Seconds the other side asked to wait, or None.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(printable(reason))
        self.retry_after_s = retry_after_s


class TooSlow(TransientTransferError):
    """The connection brought less than the least speed: another one may be faster."""


class PermanentTransferError(Exception):
    """The transfer cannot succeed as asked: trying again would give the same answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable(reason))


class Final(PermanentTransferError):
    """The transfer could not succeed on any other node, or at any other time soon: no task is tried again for it.

    The file is not there, or has a name that none can have.
    """


class OtherVersion(PermanentTransferError):
    """The other side has not the version any more that tasks of the run were given; another node may have kept it."""


class TransferCancelled(PermanentTransferError):
    """The method was closed, or another file of the same task failed."""


class NotAsStated(Final):
    """The content is whole and has another digest than the user states.

    Attributes:
        expected: The digest that is stated, as ``algorithm:digits``.
        found: That of the content, likewise.
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the content has the digest {found}, not {expected} as the File says")
        self.expected = expected
        self.found = found


class ChecksumMismatch(TransientTransferError):
    """The bytes that arrived are not those that the other side announced: start over."""


def redacted(url: str) -> str:
    """Return the URL without password and without the values of its query, which may hold signatures."""
    if not url.lower().startswith("http"):
        return masked(url)  # there the rest is a name
    if "?" not in url and "@" not in url:
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url.partition("?")[0]
    netloc = parts.netloc
    if parts.password is not None:
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        netloc = f"{parts.username}:***@{host}" + ("" if port is None else f":{port}")
    # Values of a query may be signatures of pre-signed URLs, which are as good as a password.
    query = re.sub(r"=[^&]+", "=...", parts.query)
    return urlunsplit((parts.scheme, netloc, parts.path, query, "")) if netloc != parts.netloc or query else url


def local_failure(error: OSError, what: str) -> PermanentTransferError:
    """Return the refusal for an error of the local file system, saying what to do."""
    hint = _LOCAL_HINTS.get(error.errno or 0, error.strerror or str(error))
    return PermanentTransferError(f"{what}: {hint}")


def staging_error(transfer: Transfer, cause: BaseException) -> StagingError:
    """Return the error that names the URL, the task, the place and the reason; ``cause`` becomes its ``__cause__``."""
    if isinstance(cause, StagingError):
        return cause
    url = redacted(transfer.file.url)
    where = f" on executor {transfer.executor}" if transfer.executor else ""
    if transfer.direction is Direction.IN:
        what = f"could not bring in {url} as {transfer.local_path}"
    else:
        what = f"could not bring out {transfer.local_path} as {url}"
    reason = str(cause) or type(cause).__name__
    if not isinstance(cause, (TransientTransferError, PermanentTransferError)):
        reason = f"{type(cause).__name__}: {reason}"
    message = printable(f"task {transfer.task_id}{where}: {what}: {reason}")
    if isinstance(cause, NotAsStated):
        error: StagingError = WrongDigest(message, url, cause.expected, cause.found)
    else:
        error = StagingError(message, url)
    if isinstance(cause, Final):
        error.final = transfer.direction is Direction.IN or not isinstance(cause, NotAsStated)  # the app may do better
    error.__cause__ = cause
    return error
