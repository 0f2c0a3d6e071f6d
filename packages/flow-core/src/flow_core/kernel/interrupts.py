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

Where an exception would do harm, the signal comes again a moment later, for at most a second: between two steps of the
import system it may leave the lock of all imports held, so that every other thread that imports waits for ever; and
Python drops what is raised in a destructor or in the callback of a weak reference.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import signal
import threading
import time
from _thread import start_new_thread
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Protocol

from flow_core.bounded_calls import BoundedCall, NoAnswerError, begin, within
from flow_core.executors import user_pools
from flow_core.kernel.unseen import tell
from flow_core.termination import make_last_calls

TERMINATION_S = 30.0  # seconds for all kernels together; the bound that docs/architecture.md promises
_TELL_S = 2.0  # seconds for a line to a log or a standard error that may never answer
_POOLS_S = 2.0  # seconds to kill the workers of wrapped pools and to reap them

_AGAIN_S = 0.02  # seconds after which a signal that came at a bad moment is sent again
_POSTPONED_S = 1.0  # seconds; then it is raised wherever it comes: the main thread may wait in such a step for long
_IMPORTS = "<frozen importlib._bootstrap>"  # file name of the code that takes and gives the locks of imports

_logger = logging.getLogger("flow.kernel")


class SignalGuarded(Protocol):
    """A kernel, as the signal handlers see it: open while signals are ours."""

    def defer(self, error: BaseException) -> bool:
        """Called on the main thread: take an exception for later, or return False."""
        ...

    def end(self, number: int, timeout_s: float) -> None:
        """Clean up since that signal came; called on a thread of its own."""
        ...


_ENDING = (signal.SIGTERM, signal.SIGHUP)

_guarded: list[SignalGuarded] = []
_terminating = threading.Event()
_postponed: dict[int, float] = {}  # signal number -> time.monotonic() of the first of its bad moments in a row


def guard(one: SignalGuarded) -> None:
    """Begin to protect; does nothing outside the main thread, or where a signal has a handler of the user's own."""
    # Python lets only the main thread set handlers of signals.
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _on_terminate)
    _guarded.append(one)


def unguard(one: SignalGuarded) -> None:
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
    if _postpone(number, frame):
        return
    if not _defer(KeyboardInterrupt()):
        signal.default_int_handler(number, frame)


def _on_terminate(number: int, frame: FrameType | None) -> None:
    if _postpone(number, frame):
        return
    # Set first: a second SIGTERM must end the process even while the first is handled.
    signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
    if _terminating.is_set():  # the other of the two came before: one clean-up is enough
        return
    _terminating.set()
    # A thread, since the main thread may be in C code and never come back to Python.
    if not begin("flow-terminate", partial(_terminate, number, list(_guarded))):
        _terminating.clear()  # the interpreter ends, and the clean-up of that is under way and bounded
        return
    error = SystemExit(128 + number)
    if not _defer(error):
        raise error


def _postpone(number: int, frame: FrameType | None) -> bool:
    """Have the signal sent again a moment later if an exception would do harm or be dropped where it came."""
    now = time.monotonic()
    if not _is_bad_moment(frame) or now - _postponed.setdefault(number, now) > _POSTPONED_S:
        _postponed.pop(number, None)
        return False
    try:
        # Not a Thread of ``threading``: that takes locks, which the interrupted code may hold.
        start_new_thread(_send_again, (number,))
    except RuntimeError:  # no further thread, or the interpreter is ending
        return False
    return True


def _is_bad_moment(frame: FrameType | None) -> bool:
    if frame is None:
        return False
    code = frame.f_code
    return code.co_filename == _IMPORTS or code.co_name == "__del__"


def _send_again(number: int) -> None:
    time.sleep(_AGAIN_S)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)


@atexit.register
def _await_death() -> None:
    """Let the signal be what ends the process, not the end of the main thread."""
    if _terminating.is_set():
        # Two seconds more than the clean-up has, so that the signal comes first.
        threading.Event().wait(TERMINATION_S + 2.0)


def _defer(error: BaseException) -> bool:
    return any(one.defer(error) for one in _guarded)


def _terminate(number: int, kernels: list[SignalGuarded]) -> None:
    """Clean up and die by the signal, also if the clean-up itself should hang."""
    # The log may be on a file system that hangs, standard error a pipe without a reader.
    within(_TELL_S, lambda: _logger.warning("%s: cleaning up", signal.Signals(number).name), "flow-terminate-log")
    for ending in [BoundedCall("flow-terminate-one", partial(one.end, number, TERMINATION_S)) for one in kernels]:
        # A second more than the kernel has by itself, to write its last lines.
        with suppress(NoAnswerError, Exception):
            ending.wait(TERMINATION_S + 1.0)
    make_last_calls()
    within(_POOLS_S, lambda: user_pools.end_workers(shared=True), "flow-pools")
    within(_TELL_S, tell, "flow-unseen")
    _die_by(number)


def _die_by(number: int) -> None:
    """End the process by a signal, whatever is set for it: Python lets only the main thread change that, C any."""
    set_action = ctypes.CDLL(None).signal
    set_action.argtypes, set_action.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    set_action(number, None)  # SIG_DFL
    os.kill(os.getpid(), number)


_masks: dict[int, set[int | signal.Signals]] = {}  # by the thread that forks: what it blocked before


def _before_fork() -> None:
    """Hold signals back while a child has our handlers: it would clean the parent's kernels up, and live on.

    One that is sent to the child meanwhile, as ``multiprocessing.Pool`` does when it ends, comes when it has none.
    """
    if _guarded:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_ENDING))


def _after_fork() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    """A child has no kernel: it is to be ended by signals like any other process."""
    _guarded.clear()
    _give_back()
    _after_fork()
    _masks.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
