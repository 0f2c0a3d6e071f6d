"""The manager of a LowLatencyExecutor: each result leaves at once, alone; the next task is awaited without sleeping.

A script on the same machine is offered a direct channel to each worker, and gives small tasks to idle workers itself.
It reports to the manager those that take longer, and all that are to be cancelled; the manager does not learn of the
others. The manager reports the death of a worker, and the script knows which task that was.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection, Sequence

from flow_core.interfaces.outcome import LossKind, Verdict
from flow_executors.common.loop_waits import BusyPoll
from flow_executors.manager.event_loop import Manager
from flow_executors.manager.fork_client import Died
from flow_executors.manager.manager_core import ExitReason, Taken, WorkerLoss
from flow_executors.manager.results import interrupted_outcome, worker_loss_outcome
from flow_executors.manager.worker_pool import WorkerEnds, WorkerPipes
from flow_executors.wire.direct_messages import (
    DirectChannelOffer,
    TakenBack,
    WorkerDied,
    pack_channel_offer,
    pack_taken,
    pack_worker_died,
    unpack_claim,
)
from flow_executors.wire.kinds import Kind, Received
from flow_executors.wire.transport import is_local

# Share of each second that may be spent looking without sleeping: all of it, as this executor is for latency.
_SHARE = 1.0
# Seconds of one such look; between two of them the budget is asked.
_AWAKE_S = 0.0003
# Seconds after a look at the clock for which events are served without another one; the same for poll, in milliseconds.
# Without it the clock was looked at between a task and its result.
_PUT_OFF_S, _PUT_OFF_MS = 0.005, 6


class DirectManager(Manager):
    """A manager in whose turns results come first. One thread: the process's main one."""

    direct_channels = True

    _spin: BusyPoll
    _clock_at = 0.0
    _offered = False

    def run(self) -> ExitReason:
        """Serve until it is time to leave; return why."""
        self._spin = BusyPoll(len(os.sched_getaffinity(0)), _preemptions, share=_SHARE)
        self._handlers[Kind.CLAIM] = self._take_claim
        return super().run()

    def _interrupt(self, walltime_s: float, reason: str, now: float) -> None:
        super()._interrupt(walltime_s, reason, now)
        for worker in self._core.claimed:  # for those tasks that only the script knows
            self._fell(worker.rank, worker.pid, *interrupted_outcome(LossKind.BLOCK, reason))

    # -- direct channels

    def _take_welcome(self, message: Received, now: float) -> None:
        super()._take_welcome(message, now)
        self._offered = (
            self._sampling is None and self._worker_pool.shared_results.same_host and is_local(self._line.home)
        )
        for rank in self._core.workers if self._offered else ():
            pipes = self._worker_pool.pipes_of(rank)
            if pipes is not None:
                self._offer_channel(pipes)

    def _report_replaced(self, pipes: WorkerEnds) -> None:
        super()._report_replaced(pipes)
        known = self._worker_pool.pipes_of(pipes.rank) if self._offered else None
        if known is not None:
            self._offer_channel(known)

    def _offer_channel(self, pipes: WorkerPipes) -> None:
        if pipes.direct_out >= 0:
            ends = pipes.task_in, pipes.direct_out
            inodes = [os.fstat(end).st_ino for end in ends]
            self._line.send(
                pack_channel_offer(DirectChannelOffer(self._outbox.manager, pipes.rank, pipes.pid, *ends, *inodes))
            )

    def _take_claim(self, message: Received, now: float) -> None:
        self._core.claim(unpack_claim(message), now)

    def _report_taken(self, taken: Sequence[Taken]) -> None:
        for rank, pid, keys in taken if self._member.registered else ():
            self._line.send(pack_taken(TakenBack(self._outbox.manager, rank, pid, keys)))

    def _report_dead_worker(self, report: Died) -> None:
        if self._offered:
            verdict, payload = worker_loss_outcome(report, WorkerLoss(), self._offer.node, self._offer.block)
            self._fell(report.rank, report.pid, verdict, payload)

    def _fell(self, rank: int, pid: int, verdict: Verdict, payload: bytes) -> None:
        """Report the end of a worker, with a verdict for the script's tasks, after all results that are here."""
        if self._member.registered:
            self._delivery.all(time.monotonic())
            self._report_taken(self._core.take_taken())
            self._line.send(pack_worker_died(WorkerDied(self._outbox.manager, rank, pid, verdict, payload)))

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
        workers = self._worker_pool_fd in ready
        if workers:
            self._handle(self._worker_pool.pool_events(), now)
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
        if self._files_fd in ready:
            self._send_files()
        self._send(now)

    def _look(self, patience_ms: int) -> Collection[int]:
        """Return what is ready, for a moment without sleeping: a process that is awake is several times as fast."""
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
        """Send results at once: somebody waits for each of them."""


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
