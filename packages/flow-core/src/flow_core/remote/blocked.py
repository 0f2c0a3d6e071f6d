"""Waking a thread that waits in C code, where an exception that was raised in it from outside does not reach it.

Standard library only: it runs on nodes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# By the id of the thread that waits. No lock: single operations of a dict are atomic.
_wakes: dict[int, Callable[[], object]] = {}


@contextmanager
def woken_by(wake_up: Callable[[], object]) -> Iterator[None]:
    """In this block, have ``wake_up`` called when the calling thread's task is to be interrupted.

    It is called by another thread, after the exception was raised, and perhaps a moment after the block has ended. It
    must end what the task waits for, a connection say, and neither block nor raise.
    """
    me = threading.get_ident()
    outer = _wakes.get(me)
    _wakes[me] = wake_up
    try:
        yield
    finally:
        # Blocks may be nested; the outer one's wake-up stands again after the inner one.
        if outer is None:
            _wakes.pop(me, None)
        else:
            _wakes[me] = outer


def wake(thread_id: int) -> None:
    """Wake a thread in which an exception was raised, if it is in a ``woken_by`` block. Any thread."""
    wake_up = _wakes.get(thread_id)
    if wake_up is not None:
        wake_up()
