"""Links, pipes and devices of other users where a task is to write: to the user's own files, or read by nobody."""

from __future__ import annotations

import os
import stat

from flow_core.errors import AppException

_ROOT = 0  # user id; root can change any file anyway, so its links are trusted


def seen(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what the system says of what lies at a path, of a link itself; None if nothing is seen there."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def foreign_link(path: str | os.PathLike[str], status: os.stat_result | None = None) -> str:
    """Say whose link, pipe or device is at a path; empty if there is none of another user's. Never raises.

    Links of the user's own and of root are as good as what they lead to. Those among the directories of a path are not
    looked at. A file of the user's own that has a second name counts as a link where others may write to its directory:
    on some systems they can give a name there to any file. ``status`` is what ``seen`` says of it, where that was
    asked.
    """
    try:
        # lstat, since the link itself is what another user may have made.
        status = os.lstat(path) if status is None else status
        if stat.S_ISREG(status.st_mode):
            if (
                status.st_nlink < 2
                or status.st_uid != os.geteuid()
                or not _open_to_others(os.path.dirname(path) or ".")
            ):
                return ""
            return "it has a second name (a hard link), and others may write to this directory, so it may be any file"
        if stat.S_ISDIR(status.st_mode) or status.st_uid in (_ROOT, os.geteuid()):
            return ""
        from flow_core.own_files import user_name  # which nodes need not

        owner = user_name(status.st_uid)
        if stat.S_ISLNK(status.st_mode):
            return f"it is a symbolic link of user {owner}, to {os.readlink(path)!r}"
        return f"it is a pipe, a socket or a device of user {owner}"
    except OSError:
        return ""


def _open_to_others(folder: str) -> bool:
    status = os.stat(folder)
    # The owner of a directory can change its files whatever its mode says.
    return status.st_uid not in (_ROOT, os.geteuid()) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def refuse_foreign_link(path: str, what: str) -> os.stat_result | None:
    """Raise AppException if a task is to write to what another user has put there; ``what`` says what should be.

    Returns what the system says of what is there, of a link itself.
    """
    status = seen(path)
    found = "" if status is None else foreign_link(path, status)
    if found:
        raise AppException(
            f"{path}, the place of {what}, is not written to: {found}. Remove it, or name the file that it leads to"
        )
    return status
