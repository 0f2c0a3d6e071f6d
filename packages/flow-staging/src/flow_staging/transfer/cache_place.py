"""Directory of the cache of fetched files: one a user and machine, unless files would have to be copied from it."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path

from flow_staging.transfer.environment import variable
from flow_staging.transfer.failures import PermanentTransferError

VARIABLE = "FLOW_CACHE"
BESIDE = ".flow-cache"


def cache_root(chosen: str | None, path: Path, working_dir: str | None) -> Path:
    """Return the directory in which this user's fetched files are kept.

    It is the one chosen, by option or else by ``FLOW_CACHE``; else the user's own, below ``$XDG_CACHE_HOME``. Where
    files go to a working directory on another file system, which needs no copies then, it is in that; where there is
    no home to write to it is in a directory for temporary files.

    Args:
        chosen: Directory that the user has chosen, perhaps together with others.
        path: Where a file goes.
        working_dir: That of the executor, if it has one.

    Raises:
        PermanentTransferError: a chosen one is no absolute path.
    """
    shared = shared_root(chosen)
    if shared is not None:
        return _of_user(str(shared), os.getuid())
    # Hard links need one file system: else each task would copy.
    own = own_root()
    if _can_be_made(own) and (working_dir is None or _device(own) == _device(path.parent)):
        return own
    return _temporary() if working_dir is None else Path(working_dir) / BESIDE


def shared_root(chosen: str | None = None) -> Path | None:
    """Return the directory that was chosen by option or variable, which users may share; None if none was.

    Raises:
        PermanentTransferError: it is no absolute path.
    """
    given = chosen or variable(VARIABLE.encode())
    if given and not os.path.isabs(given):
        what = f"CachePolicy(directory={chosen!r})" if chosen else f"{VARIABLE}={given!r}"
        raise PermanentTransferError(
            f"{what} is no absolute path: the directory of the cache must be the same for all processes"
        )
    return _path(given) if given else None


def own_root() -> Path:
    """Return the user's own directory, whether it is there or not."""
    base = variable(b"XDG_CACHE_HOME")
    if not os.path.isabs(base):  # as its specification says
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return _path(f"{base}/flow/files") if os.path.isabs(base) else _temporary()  # a user without home


@lru_cache(maxsize=64)
def _path(text: str) -> Path:
    """Return a path, the same object for the same text: each file of a run asks, and hashes it."""
    return Path(text)


@lru_cache(maxsize=64)
def _of_user(shared: str, uid: int) -> Path:
    return Path(shared) / str(uid)


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"flow-cache-{os.getuid()}"


def _can_be_made(folder: Path) -> bool:
    """Return whether a directory can be written to, or made."""
    if os.path.isdir(folder):
        return os.access(folder, os.W_OK | os.X_OK)
    # The nearest directory that is there decides whether the others can be made in it.
    for above in (folder, *folder.parents):
        if os.path.lexists(above):
            return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    return False


def _device(path: Path) -> int | None:
    """Return the file system that a directory is, or would be made, on."""
    for folder in (path, *path.absolute().parents):
        try:
            return folder.stat().st_dev
        except OSError:
            continue
    return None
