"""The manager of a LowLatencyExecutor: each result leaves at once, alone, and the next task is awaited wide awake.

A script on the same machine is offered a lane to each worker, and gives small tasks to idle workers itself. The manager
is told of those that take longer, and of all that it must know to cancel them; of the others it never hears, but when
a worker dies it says so, and the script knows which task that was.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection, Sequence

from flow_core.interfaces.outcome import LossKind, Verdict
from flow_executors.interchange.spin import Spin
from flow_executors.manager.nursery import Died
from flow_executors.manager.pipes import Pipes
from flow_executors.manager.records import Fallen, Leaving, Taken
from flow_executors.manager.reports import fallen_outcome, interrupted_outcome
from flow_executors.manager.shell import Manager
from flow_executors.wire.frames import (
    FallenWorker,
    Kind,
    LaneOffer,
    TakenBack,
    pack_fallen,
    pack_lane,
    pack_taken,
    unpack_claim,
)
from flow_executors.wire.kinds import Received
from flow_executors.wire.local import is_local

_SHARE = 1.0
_AWAKE_S = 0.0003
_PUT_OFF_S, _PUT_OFF_MS = 0.005, 6
"""For so long after a look at the clock events are served without another one."""


class DirectManager(Manager):
    """A manager in whose turns results come first. One thread: the process's main one."""

    lanes = True

    _spin: Spin
    _clock_at = 0.0
    _offered = False

    def run(self) -> Leaving:
        """Serve until it is time to leave; return why."""
        self._spin = Spin(len(os.sched_getaffinity(0)), _preemptions, share=_SHARE)
        self._handlers[Kind.CLAIM] = self._take_claim
        return super().run()

    def _interrupt(self, walltime_s: float, reason: str, now: float) -> None:
        super()._interrupt(walltime_s, reason, now)
        for worker in self._core.claimed:  # for those tasks that only the script knows
            self._fell(worker.rank, worker.pid, *interrupted_outcome(LossKind.BLOCK, reason))

    # -- lanes

    def _take_welcome(self, message: Received, now: float) -> None:
        super()._take_welcome(message, now)
        self._offered = self._sampling is None and self._crew.shipments.same_host and is_local(self._line.home)
        for rank in self._core.workers if self._offered else ():
            pipes = self._crew.pipes_of(rank)
            if pipes is not None:
                self._offer_lane(pipes)

    def _tell_replaced(self, pipes: Pipes) -> None:
        super()._tell_replaced(pipes)
        if self._offered:
            self._offer_lane(pipes)

    def _offer_lane(self, pipes: Pipes) -> None:
        if pipes.lane_out >= 0:
            ends = pipes.task_in, pipes.lane_out
            inodes = [os.fstat(end).st_ino for end in ends]
            self._line.send(pack_lane(LaneOffer(self._outbox.manager, pipes.rank, pipes.pid, *ends, *inodes)))

    def _take_claim(self, message: Received, now: float) -> None:
        self._core.claim(unpack_claim(message), now)

    def _tell_taken(self, taken: Sequence[Taken]) -> None:
        for rank, pid, keys in taken if self._member.registered else ():
            self._line.send(pack_taken(TakenBack(self._outbox.manager, rank, pid, keys)))

    def _tell_fallen(self, report: Died) -> None:
        if self._offered:
            verdict, payload = fallen_outcome(report, Fallen(), self._offer.node, self._offer.block)
            self._fell(report.rank, report.pid, verdict, payload)

    def _fell(self, rank: int, pid: int, verdict: Verdict, payload: bytes) -> None:
        """Say what the end of a worker means for what the script has given it, after all that is known already."""
        if self._member.registered:
            self._delivery.all()
            self._tell_taken(self._core.take_taken())
            self._line.send(pack_fallen(FallenWorker(self._outbox.manager, rank, pid, verdict, payload)))

    # -- one turn

    def _turn(self) -> None:
        if self._offered and not self._member.registered:
            self._offered = False
            self._core.disown()
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
