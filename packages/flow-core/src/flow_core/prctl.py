"""Process control of Linux: signals at a parent's death, and adoption of orphans. Elsewhere an OSError is raised."""

from __future__ import annotations

import os
import signal

_PDEATHSIG = 1  # numbers of <sys/prctl.h>, which Python does not have
_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Have the calling process killed when the thread that started it ends: for parents of one thread only."""
    _prctl(_PDEATHSIG, signal.SIGKILL)


def go_on_after_parent() -> None:
    """Have the calling process continued when its parent ends, if somebody has stopped it; never raises.

    A process that watches for its parent's end sees nothing while it is stopped, and would stay for good. The signal
    (SIGCONT) comes at the end of each thread that is or becomes the parent; it does nothing to a process that runs.
    """
    try:
        _prctl(_PDEATHSIG, signal.SIGCONT)
    except (OSError, AttributeError):
        pass


def become_subreaper() -> None:
    """Make orphans below the calling process its children, so that it can end and reap them."""
    _prctl(_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
