"""The manager of a LowLatencyExecutor: each result leaves at once, alone, and the next task is awaited wide awake."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection

from flow_executors.interchange.spin import Spin
from flow_executors.manager.shell import Leaving, Manager

_SHARE = 1.0
_AWAKE_S = 0.0003
_PUT_OFF_S, _PUT_OFF_MS = 0.005, 6
"""For so long after a look at the clock events are served without another one."""


class DirectManager(Manager):
    """A manager in whose turns results come first. One thread: the process's main one."""

    _spin: Spin
    _clock_at = 0.0

    def run(self) -> Leaving:
        """Serve until it is time to leave; return why."""
        self._spin = Spin(len(os.sched_getaffinity(0)), _preemptions, share=_SHARE)
        return super().run()

    def _turn(self) -> None:
        busy = self._member.watched and time.monotonic() < self._clock_at
        if not busy:
            self._member.watch()
        ready = self._look(_PUT_OFF_MS if busy else self._patience_ms())
        now = time.monotonic()
        workers = self._crew_fd in ready
        if workers:
            self._handle(self._crew.news(), now)
            self._send(now)
        if len(ready) > workers or not ready:
            self._listen(now)
        self._hand_out(now)
        if now >= self._clock_at or not ready:
            self._clock_at = now + _PUT_OFF_S if ready else 0.0
            self._look_at_clock(now)
        if self._signals is not None and self._signals_fd in ready:
            self._signals.handle(self)
            self._hand_out(now)
        self._send(now)

    def _look(self, patience_ms: int) -> Collection[int]:
        """Return what is ready, for a moment without sleeping: who is awake and warm is several times as fast."""
        spin, poll, clock = self._spin, self._poller.poll, time.monotonic
        if self._line.waiting:
            return super()._look(0)
        now = clock()
        if spin.wanted(now):
            until = now + _AWAKE_S
            while not (ready := poll(0)) and (now := clock()) < until:
                pass
            spin.after(clock(), bool(ready), True)
            if ready:
                return dict(ready)
        ready = poll(patience_ms)
        spin.after(clock(), bool(ready), True)
        return dict(ready)

    def _coalesce(self) -> None:
        """Wait for nothing."""


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
