"""Why a transfer fails: the two kinds that the machinery tells apart, and the error the user sees."""

from __future__ import annotations

import errno
import re
from urllib.parse import urlsplit, urlunsplit

from flow_core.errors import StagingError
from flow_core.interfaces.staging import Direction, Transfer

_LOCAL_HINTS = {
    errno.ENOSPC: "the disk is full; free space or set the executor's working_dir to a larger file system",
    errno.EDQUOT: "the disk quota is used up; free space or set the executor's working_dir elsewhere",
    errno.EROFS: "the file system is read-only; set the executor's working_dir to one that can be written",
    errno.EACCES: "permission denied; check the rights of the directory and of the executor's working_dir",
    errno.ENOENT: "no such file or directory",
    errno.EISDIR: "it is a directory; only plain files are staged",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}


class Dropped(Exception):
    """The transfer broke for a reason that may pass: it is worth resuming.

    Attributes:
        retry_after_s: Seconds the other side asked to wait, or None.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The transfer cannot succeed as asked: trying again would give the same answer."""


class Stopped(Refused):
    """The method was closed, or another file of the same task failed."""


class WrongContent(Dropped):
    """The bytes that arrived are not those that the other side announced: start over."""


def redacted(url: str) -> str:
    """Return the URL without password and without the values of its query, which may hold signatures."""
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
    query = re.sub(r"=[^&]+", "=...", parts.query)
    return urlunsplit((parts.scheme, netloc, parts.path, query, "")) if netloc != parts.netloc or query else url


def local_failure(error: OSError, what: str) -> Refused:
    """Return the refusal for an error of the local file system, saying what to do."""
    hint = _LOCAL_HINTS.get(error.errno or 0, error.strerror or str(error))
    return Refused(f"{what}: {hint}")


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
    if not isinstance(cause, (Dropped, Refused)):
        reason = f"{type(cause).__name__}: {reason}"
    error = StagingError(f"task {transfer.task_id}{where}: {what}: {reason}", url)
    error.__cause__ = cause
    return error
