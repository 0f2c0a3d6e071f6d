"""File system of a path: write-ahead logging of SQLite needs shared memory, which network file systems lack."""

from __future__ import annotations

import os
from pathlib import Path

_NETWORK = frozenset({
    "nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "afs",
    "9p", "pvfs2", "orangefs", "panfs", "glusterfs", "ncpfs", "coda", "virtiofs", "wekafs", "daos", "davfs", "sshfs",
    "vboxsf", "drvfs",
})  # fmt: skip


def is_local(path: Path) -> bool:
    """Return whether a path (it need not exist yet) is known to be on a file system of this machine alone."""
    kind = _kind(path)
    # Of fuse nothing is known of what is behind it; what is unknown counts as network: slower, never wrong.
    return kind is not None and kind not in _NETWORK and not kind.startswith("fuse")


def _kind(path: Path) -> str | None:
    """Return the type of the file system, None where it cannot be known."""
    real = os.path.realpath(path)
    best, kind = -1, None
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                left, _, right = line.partition(" - ")
                mount = _unescape(left.split()[4])
                # The longest mount point wins; of equal ones the last, which is mounted over the others.
                if len(mount) >= best and (real == mount or real.startswith(mount.rstrip("/") + "/")):
                    best, kind = len(mount), right.split()[0]
    except (OSError, IndexError):
        return None
    return kind


def _unescape(name: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        name = name.replace(code, char)
    return name
