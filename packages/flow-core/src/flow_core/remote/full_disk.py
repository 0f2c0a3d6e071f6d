"""Full disks as the reason why a command failed: its own message may have gone to just that disk."""

from __future__ import annotations

import os
from collections.abc import Iterable

from flow_core.write_remedies import FULL

_PROBE = b"\0" * 4096  # bytes: one page, so that the file system has to find a block for it


def full_disks(files: Iterable[tuple[str, str | int]]) -> list[str]:
    """Say which of some places have no room, by really writing a page there. Never raises.

    Args:
        files: What to call each, and its path (of a file or a directory) or a descriptor. What is no regular file and
            no directory is passed over.

    Returns:
        One sentence for each file system that is full, with the reason of the operating system.
    """
    told: dict[int, str] = {}
    for name, place in files:
        try:
            # The descriptor of a pipe or a socket leads to no path, so it is passed over below.
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else place
            directory = path if os.path.isdir(path) else os.path.dirname(path) if os.path.isfile(path) else ""
            device = os.stat(directory or os.devnull).st_dev
            if directory and device not in told:
                reason = _reason(directory)
                if reason:
                    told[device] = f"{reason}: {path} ({name})"
        except OSError:
            continue
    return list(told.values())


def _reason(directory: str) -> str:
    """Return why nothing can be written to a directory's file system, empty if something can or if it is not known."""
    try:
        # A file without a name: nothing is left of it, also if the process is killed now.
        probe = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError) as error:
        full = isinstance(error, OSError) and error.errno in FULL
        return os.strerror(error.errno or 0) if full and isinstance(error, OSError) else ""
    try:
        os.write(probe, _PROBE)
    except OSError as error:
        return os.strerror(error.errno or 0) if error.errno in FULL else ""
    finally:
        os.close(probe)
    return ""
