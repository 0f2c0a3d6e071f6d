"""A rank with a worker: it has what a manager has of its node, and rank 0 in the place of the interchange.

The worker is a process of its own, forked before MPI was initialised, so that a task that crashes, is cancelled or
takes too long ends that process, and neither this one nor the job.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.sampler import Sample
from flow_core.remote.sampling import Sampling
from flow_executors.common.run_marker import sees_marker
from flow_executors.errors import BadMessage
from flow_executors.extreme_scale.channel import LOOK_S, IdlePace, RankChannel
from flow_executors.extreme_scale.neighbour import Neighbour
from flow_executors.extreme_scale.rank_messages import (
    AGE,
    BEAT,
    ECHO,
    FELL,
    NUMBER,
    PID,
    SWEEP,
    TASK,
    RankMessage,
    pack_died,
)
from flow_executors.extreme_scale.rank_pool import pack_frames
from flow_executors.extreme_scale.world_core import Seat
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.loop_parts import Health
from flow_executors.manager.manager_core import Assignment, Record, WorkerEntry
from flow_executors.manager.worker_pool import PoolEvents, WorkerPool
from flow_executors.wire.messages import pack_need, pack_samples, unpack_blob, unpack_spec
from flow_executors.worker.packets import FILES, TOLD

# Milliseconds between looks at MPI while nothing happens, as while a task runs: a bound for how late a kill is seen.
_LONGEST_MS = 10
# Thresholds of silence of rank 0 after which this rank ends the job: it is dead, and MPI has not noticed.
_THRESHOLDS = 4
# Beats within the threshold of silence, so that one that is late counts for nothing.
_BEATS = 4
_MANAGER = 0

log = logging.getLogger("flow.manager")


@dataclass(frozen=True, slots=True)
class RankParts:
    """What a rank is made of."""

    channel: RankChannel
    seat: Seat
    node: str
    pool: WorkerPool
    blobs: BlobFiles
    files: FileAgent
    sampling: Sampling | None
    period_s: float
    threshold_s: float


class RankGivenUp(Exception):
    """Rank 0 is not heard any more."""


class RankLoop:
    """The loop of one rank. One thread: the process's main one."""

    def __init__(self, parts: RankParts) -> None:
        self._channel = parts.channel
        self._pool = parts.pool
        self._blobs = parts.blobs
        self._files = parts.files
        self._sampling = parts.sampling
        self._node = parts.node
        self._seat = parts.seat
        self._threshold_s = parts.threshold_s
        self._beat_s = min(parts.period_s, parts.threshold_s / _BEATS)
        self._health: Health = parts.pool.watch(self._replace, self._notice, parts.threshold_s)
        self._pace = IdlePace(_LONGEST_MS)
        self._worker: WorkerEntry | None = None
        self._befell: dict[int, str] = {}
        self._number = 0
        self._offset_ns = 0
        self._ended = False
        self._next_beat = 0.0
        self._heard = time.monotonic()
        self._signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The last two say that the end is near: mpiexec passes them on to all, and rank 0 acts on them.
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._poller = select.poll()
        for descriptor in (self._signals, self._pool.fileno(), self._files.ready_fd):
            self._poller.register(descriptor, select.POLLIN)
        self._neighbour = Neighbour(parts.seat.neighbour)
        if self._neighbour.fd >= 0:
            self._poller.register(self._neighbour.fd, select.POLLIN)

    def run(self) -> None:
        """Serve until rank 0 says that it is enough. Raises RankGivenUp."""
        while not self._ended:
            self._turn()

    # -- one turn

    def _turn(self) -> None:
        ready = self._look()
        now = time.monotonic()
        if self._pool.fileno() in ready:
            self._follow(self._pool.pool_events(), now)
        if self._files.ready_fd in ready:
            for message in self._files.outgoing():
                self._tell(RankMessage.FILE, message)
        for _, kind, message in self._channel.receive():
            self._heard = now
            self._take(RankMessage(kind), message, now)
        if self._signals in ready:
            self._signalled()
        if self._neighbour.fd in ready and not self._ended:
            self._neighbour_ended()
        self._look_at_clock(now)

    def _look(self) -> set[int]:
        """Return the descriptors that are ready; nothing where a message of rank 0 has come, or the clock is due."""
        poll, pace, channel = self._poller.poll, self._pace, self._channel
        wait_ms = 0
        while True:
            ready = set(dict(poll(wait_ms)))
            now = time.monotonic()
            if ready or channel.waiting:
                pace.stirred(now)
                return ready
            if now >= self._due():
                return ready
            wait_ms = pace.nap_ms(now)
            if not wait_ms:
                time.sleep(LOOK_S)

    def _due(self) -> float:
        due = min(self._next_beat, self._health.due)
        return due if self._sampling is None else min(due, self._sampling.due)

    def _look_at_clock(self, now: float) -> None:
        if now >= self._next_beat:
            self._next_beat = now + self._beat_s
            self._tell(RankMessage.BEAT, BEAT.pack(time.time_ns()))
            if now - self._heard > _THRESHOLDS * self._threshold_s:
                raise RankGivenUp(f"rank 0 was not heard for {now - self._heard:.0f} s")
        worker = self._worker
        if now >= self._health.due:
            reason = self._health.look({worker.rank: worker} if worker is not None else {}, now)
            if reason:
                self._follow(self._pool.abandon(reason), now)
                self._tell(RankMessage.GONE, reason.encode())
        if self._sampling is not None and now >= self._sampling.due:
            running = {worker.pid: next(iter(worker.held))} if worker is not None and worker.held else {}
            samples = self._sampling.take(running, now)
            # One rank speaks for the node as a whole.
            self._report([one for one in samples if one.key is not None or self._seat.first])

    def _signalled(self) -> None:
        try:
            came = os.read(self._signals, 64)
        except BlockingIOError:
            return
        if signal.SIGTERM in came or signal.SIGHUP in came:
            log.info("this rank is told to end (signals %s)", ", ".join(map(str, came)))
            self._tell(RankMessage.ENDING)

    def _neighbour_ended(self) -> None:
        who = self._neighbour.ended()
        if who is not None:
            self._poller.unregister(self._neighbour.fd)
            self._neighbour.close()
            self._tell(RankMessage.FELL, FELL.pack(*who))

    # -- messages of rank 0

    def _take(self, kind: RankMessage, message: bytes, now: float) -> None:
        match kind:
            case RankMessage.TASK:
                class_id, key = TASK.unpack_from(message)
                self._begin(class_id, key, message[TASK.size :], now)
            case RankMessage.SPEC:
                self._pool.envelopes.learn(*unpack_spec(message))
            case RankMessage.BLOB:
                self._blobs.add(unpack_blob(memoryview(message)))
            case RankMessage.FILE:
                self._files.take(message)
            case RankMessage.SPAWN:
                self._pool.spawn(self._seat.worker)
            case RankMessage.KILL:
                (age_s,) = AGE.unpack(message)
                self._pool.kill(self._seat.worker, None if age_s < 0 else age_s)
            case RankMessage.TELL:
                self._pool.tell(self._seat.worker, PID.unpack(message)[0])
            case RankMessage.SWEEP:
                pid, age_s = SWEEP.unpack(message)
                self._pool.sweep(self._seat.worker, pid, age_s)
            case RankMessage.NUMBER:
                (self._number,) = NUMBER.unpack(message)
                self._files.registered(self._number)
            case RankMessage.MARKER:
                path, digest = json.loads(message)
                self._files.apart = not sees_marker(path, digest)
            case RankMessage.ECHO:
                self._compare_clocks(*ECHO.unpack(message))
            case RankMessage.BYE:
                self._ended = True
            case _:
                raise BadMessage(f"a rank with a worker does not take {kind.name}")

    def _begin(self, class_id: int, key: int, record: bytes, now: float) -> None:
        worker = self._worker
        if worker is None:  # it died, which rank 0 is being told: it counts this task as one of the dead worker
            log.info("a task came for a worker that is dead")
            return
        if self._pool.hand_out([Assignment(self._seat.worker, key, record, class_id)]):
            reason = b"there was no descriptor or memory left to give it to its worker"
            self._tell(RankMessage.FRAMES, pack_frames([(key, 0, 0, int(Verdict.RETURNED), reason)]))
            return
        worker.held[key] = None
        worker.since = now

    def _compare_clocks(self, sent_ns: int, theirs_ns: int) -> None:
        """Learn how far the clock of rank 0 is ahead, where more than this way of asking can tell."""
        now_ns = time.time_ns()
        ahead_ns, trip_ns = theirs_ns - (sent_ns + now_ns) // 2, now_ns - sent_ns
        self._offset_ns = ahead_ns if abs(ahead_ns) > trip_ns else 0

    # -- events of the worker

    def _follow(self, events: PoolEvents, now: float) -> None:
        for _, frames in events.results:
            keys = [frame[0] for frame in frames]
            self._pool.envelopes.done(keys)
            worker = self._worker
            if worker is not None:
                for key in keys:
                    worker.held.pop(key, None)
                worker.since = now
                if self._sampling is not None:
                    self._report(self._sampling.ended(worker.pid, keys))
            self._tell(RankMessage.FRAMES, pack_frames(frames, self._offset_ns))
        if events.told:
            self._tell(RankMessage.FRAMES, pack_frames([(key, 0, 0, TOLD, b"") for _, key in events.told]))
        if events.files:
            self._tell(RankMessage.FRAMES, pack_frames([(key, 0, 0, FILES, text) for key, text in events.files]))
        for ends in events.ready:
            self._worker = WorkerEntry(ends.rank, ends.pid, ends.depth, since=now)
            self._tell(RankMessage.READY, PID.pack(ends.pid))
        missing = self._blobs.missing(events.needed)
        if missing:
            self._tell(RankMessage.NEED, pack_need(missing))
        for report, last in events.died:
            unstarted: list[tuple[int, Record]] = []
            if last is not None:
                unstarted = self._pool.envelopes.opened(last.take_back(last.depth + 1))
                last.close()
            if self._worker is not None and self._worker.pid == report.pid:
                self._pool.envelopes.done(self._worker.held)
                self._worker = None
            how = report.how or self._befell.pop(report.pid, "")
            self._tell(RankMessage.DIED, pack_died(replace(report, how=how), unstarted))
        for failure in events.failed:
            self._tell(RankMessage.FAILED, failure.reason.encode())
        if events.answered:
            self._health.answered()
        if events.gone:
            reason = "the fork server of its worker died"
            self._follow(self._pool.abandon(reason), now)
            self._tell(RankMessage.GONE, reason.encode())

    def _replace(self, rank: int, how: str) -> None:
        worker = self._worker
        if worker is not None:
            self._befell[worker.pid] = how
            self._pool.kill(rank, time.monotonic() - worker.since if worker.held else None)

    # -- up

    def _notice(self, text: str) -> None:
        log.warning("%s", text)
        self._tell(RankMessage.NOTICE, f"node {self._node}: {text}".encode(errors="replace"))

    def _report(self, samples: Sequence[Sample]) -> None:
        if samples and self._number:
            self._tell(RankMessage.SAMPLES, pack_samples(self._number, samples, node=self._node))

    def _tell(self, kind: RankMessage, data: bytes = b"") -> None:
        self._channel.send(_MANAGER, kind, data)
