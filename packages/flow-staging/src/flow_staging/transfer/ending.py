"""SIGTERM during transfers in a worker process: what is half-made is removed before the process ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Terminated(BaseException):
    """Raised where the main thread is when SIGTERM comes. No Exception, so that nothing tries again."""


@contextmanager
def tidily(main_thread: bool) -> Iterator[None]:
    """In this block, let SIGTERM unwind what is under way, and then end the process as it would have at once.

    ``main_thread`` tells that the task may have signals. Where the process has a handler of its own, that one stays.
    """
    mine = main_thread and threading.current_thread() is threading.main_thread()
    # Only the main thread gets signals; a handler of the user's own decides itself.
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _tell)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # By the signal again, so that the parent sees the process ended by SIGTERM and not by an exception.
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tell(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the next one must not come into the midst of what this one began
    raise _Terminated
