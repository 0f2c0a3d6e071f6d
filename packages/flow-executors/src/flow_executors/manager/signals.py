"""Signals as bytes in a pipe, so that the loop handles them between two turns and never inside one."""

from __future__ import annotations

import os
import signal
import time

from flow_executors.manager.lifetime import Lifetime
from flow_executors.manager.records import Leaving
from flow_executors.manager.shell import Manager
from flow_executors.wire.control import ExitCode

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_LATE = 0.9


class SignalPipe:
    """Catches the signals by which schedulers and users end a job. Main thread only."""

    def __init__(self, block: Lifetime) -> None:
        """A SIGTERM late in the block's life is its end."""
        self._walltime_s = block.walltime_s
        self._started = time.monotonic() - block.age_s
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for signum in _ENDING:
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal came."""
        return self._read

    def handle(self, manager: Manager) -> None:
        """Tell the manager what the signals mean."""
        try:
            came = os.read(self._read, 64)
        except BlockingIOError:
            return
        if signal.SIGTERM in came or signal.SIGHUP in came:
            name = "SIGTERM" if signal.SIGTERM in came else "SIGHUP"
            late = bool(self._walltime_s) and time.monotonic() - self._started > _LATE * self._walltime_s
            manager.block_ends(self._walltime_s if late else 0.0, f"its block was ended (the manager received {name})")
        elif signal.SIGINT in came:
            manager.leave(Leaving(ExitCode.DONE, "it was interrupted (SIGINT)", 1))
