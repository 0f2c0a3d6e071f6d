"""Ending a task that runs in a thread, by an asynchronous exception."""

from __future__ import annotations

import ctypes
import threading


class Killed(BaseException):
    """Raised inside a task that was asked to end. No Exception, so that tasks do not catch it by mistake."""


class Interruptible:
    """A thread that runs one try after the other, each of which another thread may interrupt.

    The thread sets ``key`` before a try and calls ``leave`` after it; in between Killed may be raised anywhere, after
    ``leave`` it may not. ``_killing`` is set before ``key`` is looked at, and ``leave`` clears ``key`` before it
    looks at the flag, so one of the two always sees the other and no lock is taken where nobody is killed.
    """

    __slots__ = ("_killing", "_lock", "ident", "key")

    def __init__(self) -> None:
        self.key = 0
        self.ident = 0
        self._killing = False
        self._lock = threading.Lock()

    def kill(self, key: int) -> None:
        """Have Killed raised in the thread if it runs this try. Any thread; code in C goes on until it returns."""
        with self._lock:
            if self._killing:
                return
            self._killing = True
            if self.key == key:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Killed))
            else:
                self._killing = False

    def leave(self) -> None:
        """End the stretch in which Killed may be raised. May raise it a last time; call it again then."""
        self.key = 0
        if self._killing:
            with self._lock:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), None)
                self._killing = False
