"""What a user can do about a directory that cannot be written to."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a file system without room, or of a quota that is used up."""


def write_remedy(error: OSError) -> str:
    """Return what goes on after a reason: what to do about files of a run. Empty if nothing is known."""
    if error.errno in FULL:
        return ". Free space there (also inodes: df -i), or name another place with run_dir="
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ". Name a place that you may write to with run_dir="
    return ""
