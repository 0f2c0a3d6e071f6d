"""The last lines of a task's standard output and error, of files within the run's own directory only."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

_MOST = 16_384


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file; ``reason`` says why there is none. ``size`` in bytes."""

    text: str = ""
    size: int = 0
    reason: str = ""


def tail(run_dir: str, path: str) -> Tail:
    """Return the end of a file. The database is not trusted: files elsewhere are named, never read."""
    root = Path(os.path.realpath(run_dir)) if run_dir else None
    if root is None or not (root / "monitoring" / "events.log").is_file():
        return Tail(reason="the run's directory is not on this machine")
    real = Path(os.path.realpath(os.path.join(root, path)))
    if not real.is_relative_to(root):
        return Tail(reason="not in the run's directory: open it yourself")
    try:
        with open(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Tail(reason="not a plain file")
            stream.seek(max(0, status.st_size - _MOST))
            data = stream.read(_MOST)
    except OSError as error:
        return Tail(reason=error.strerror or str(error))
    return Tail(data.decode("utf-8", "replace"), status.st_size)
