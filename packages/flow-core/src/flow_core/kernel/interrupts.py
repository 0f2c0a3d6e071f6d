"""Ctrl-C, SIGTERM and SIGHUP while kernels are open, where the user has no handlers of their own.

Ctrl-C: a KeyboardInterrupt may come between any two steps of Python code; in the midst of the graph's own steps it
would lose a task or leave a waiter asleep. Ours looks whether the main thread is inside a reactor. If so the interrupt
is raised as it leaves (a few microseconds later); a second one is raised at once.

SIGTERM and SIGHUP (the terminal was closed, the ssh session dropped): their default action ends the process on the
spot, without a checkpoint. Ours raises SystemExit in the main thread in the same careful way, and at the same time
cleans all kernels up on a thread of its own, within a bound, and tells of failures that nobody looked at; then the
process dies by the signal, whatever the main thread does. A second SIGTERM ends it on the spot; a second SIGHUP does
not, since a terminal's end is often told twice, by the system and by the shell. Where SIGHUP is ignored (``nohup``) it
stays so.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import signal
import threading
from types import FrameType
from typing import Protocol

from flow_core.aside import within
from flow_core.kernel.unseen import tell

TERMINATION_S = 30.0
_TELL_S = 2.0

_logger = logging.getLogger("flow.kernel")


class Guarded(Protocol):
    """What is open while signals are ours."""

    def defer(self, error: BaseException) -> bool:
        """Called on the main thread: take an exception for later, or return False."""
        ...

    def end(self, number: int, timeout_s: float) -> None:
        """Clean up since that signal came; called on a thread of its own."""
        ...


_ENDING = (signal.SIGTERM, signal.SIGHUP)

_guarded: list[Guarded] = []
_terminating = threading.Event()


def guard(one: Guarded) -> None:
    """Begin to protect; does nothing outside the main thread, or where a signal has a handler of the user's own."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _on_terminate)
    _guarded.append(one)


def unguard(one: Guarded) -> None:
    """End to protect; the last one gives the signals back, if it is called on the main thread."""
    if one in _guarded:
        _guarded.remove(one)
    if threading.current_thread() is threading.main_thread() and not _guarded:
        _give_back()


def _give_back() -> None:
    if signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ENDING:
        if signal.getsignal(number) is _on_terminate:
            signal.signal(number, signal.SIG_DFL)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if not _defer(KeyboardInterrupt()):
        signal.default_int_handler(number, frame)


def _on_terminate(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
    if _terminating.is_set():  # the other of the two came before: one clean-up is enough
        return
    _terminating.set()
    threading.Thread(target=_terminate, args=(number, list(_guarded)), name="flow-terminate", daemon=True).start()
    error = SystemExit(128 + number)
    if not _defer(error):
        raise error


@atexit.register
def _await_death() -> None:
    """Let the signal be what ends the process, not the end of the main thread."""
    if _terminating.is_set():
        threading.Event().wait(TERMINATION_S + 2.0)


def _defer(error: BaseException) -> bool:
    return any(one.defer(error) for one in _guarded)


def _terminate(number: int, kernels: list[Guarded]) -> None:
    """Clean up and die by the signal, also if the clean-up itself should hang."""
    _logger.warning("%s: cleaning up", signal.Signals(number).name)
    threads = [
        threading.Thread(target=one.end, args=(number, TERMINATION_S), name="flow-terminate-one", daemon=True)
        for one in kernels
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TERMINATION_S + 1.0)
    within(_TELL_S, tell, "flow-unseen")  # standard error may be a pipe that nobody reads
    _die_by(number)


def _die_by(number: int) -> None:
    """End the process by a signal, whatever is set for it: Python lets only the main thread change that, C any."""
    set_action = ctypes.CDLL(None).signal
    set_action.argtypes, set_action.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    set_action(number, None)  # SIG_DFL
    os.kill(os.getpid(), number)


def _after_fork_in_child() -> None:
    """A child has no kernel: it is to be ended by signals like any other process."""
    _guarded.clear()
    _give_back()


os.register_at_fork(after_in_child=_after_fork_in_child)
