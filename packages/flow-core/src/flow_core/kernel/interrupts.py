"""Ctrl-C while the kernel works on the main thread: it is raised when the kernel is done, not in its midst.

A KeyboardInterrupt may come between any two steps of Python code; in the midst of the graph's own steps it would lose
a task or leave a waiter asleep. While a kernel is open, and only if nobody else handles SIGINT, ours looks whether the
main thread is inside a reactor. If so the interrupt is raised as it leaves (a few microseconds later); a second one is
raised at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Protocol


class Deferring(Protocol):
    """What may ask an interrupt to wait."""

    def defer_interrupt(self) -> bool:
        """Called on the main thread: take the interrupt for later, or return False."""
        ...


_guarded: list[Deferring] = []


def guard(one: Deferring) -> None:
    """Begin to protect; does nothing outside the main thread, or where SIGINT has a handler of the user's own."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    _guarded.append(one)


def unguard(one: Deferring) -> None:
    """End to protect; the last one gives the signal back, if it is called on the main thread."""
    if one in _guarded:
        _guarded.remove(one)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and not _guarded and signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    for one in _guarded:
        if one.defer_interrupt():
            return
    signal.default_int_handler(number, frame)
