"""Directories of a task of ranks on each of its nodes, for the files of MPI; removed when the task has ended there.

Standard library only, as all that workers load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Final

_MEMORY: Final = "/dev/shm"  # nosec B108 - where MPI itself has the memory that ranks share


def _places(mark: str) -> tuple[str, str]:
    name = f"flow-ranks-{mark}"
    # On the node's own disk, whatever the task's directory is on: files there are mapped into memory.
    return os.path.join(tempfile.gettempdir(), name), os.path.join(_MEMORY, name)


def make(mark: str) -> tuple[str, str]:
    """Make them; return the one for files, and the one for memory that ranks share. Empty: the node has none."""
    for place in _places(mark):
        try:
            os.mkdir(place, 0o700)
        except OSError:
            continue
    return found(mark)


def found(mark: str) -> tuple[str, str]:
    """Return the directories as ``make`` does, where they have been made."""
    files, memory = (place if _is_own(place) else "" for place in _places(mark))
    return files, memory


def remove(mark: str) -> None:
    """Remove them with all that is in them. Never raises."""
    for place in _places(mark):
        if _is_own(place):
            shutil.rmtree(place, ignore_errors=True)


def _is_own(place: str) -> bool:
    try:
        about = os.lstat(place)
    except OSError:
        return False
    return about.st_uid == os.geteuid() and not os.path.islink(place)
