"""The files that SQLite keeps beside a database: what it finds in them it takes for the database's own pages.

In a directory to which others may write, they can lay such a file beside a closed database: its content would become
the database's, or the database's next pages would be written into a file of theirs.
"""

from __future__ import annotations

import os
from pathlib import Path

from flow_core.own_files import NotOwnFile

_SUFFIXES = ("-journal", "-wal", "-shm")
_OPEN_TO_OTHERS = 0o044  # mode bits: readable by the group or by all


def check_companions(path: Path) -> None:
    """Check that the files beside a database come from whom the database belongs to, from this user, or from root.

    What other users who may read the database have left there while they read it is empty, and passes.

    Raises:
        NotOwnFile: one is another user's.
    """
    try:
        main = path.stat()
    except OSError:  # nothing is there that could be changed or read
        owners, private = {0, os.geteuid()}, True
    else:
        owners, private = {0, os.geteuid(), main.st_uid}, not main.st_mode & _OPEN_TO_OTHERS
    for suffix in _SUFFIXES:
        beside = path.with_name(path.name + suffix)
        try:
            status = beside.lstat()
        except OSError:
            continue
        if status.st_uid not in owners and (private or (status.st_size > 0 and suffix != "-shm")):
            raise NotOwnFile(
                beside,
                f"user {status.st_uid} has put it beside the database, whose content it would change: remove it, and "
                "keep the database where others may not write",
            )
