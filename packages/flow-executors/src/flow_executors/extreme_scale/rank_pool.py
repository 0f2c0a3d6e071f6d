"""The workers of the other ranks, as the manager of rank 0 has them: each is reached through its rank. One thread.

A rank has one task at a time, so nothing that was given to it can be taken back: what has not begun waits here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from flow_core.interfaces.call import DEFAULT_SPEC
from flow_executors.errors import BadMessage
from flow_executors.extreme_scale.channel import LOOK_S, RankChannel
from flow_executors.extreme_scale.neighbour import Neighbour
from flow_executors.extreme_scale.rank_files import RankFiles
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
    unpack_died,
)
from flow_executors.extreme_scale.world_core import RankLiveness, World
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.manager.fork_client import NotSpawned
from flow_executors.manager.manager_core import Assignment, Record, WorkerEntry
from flow_executors.manager.worker_health import NO_COMMANDS
from flow_executors.manager.worker_pool import Frame, PoolEvents, SharedMemoryResults, TaskEnvelopes, WorkerPipes
from flow_executors.wire.messages import DEFAULT_CLASS, pack_blob, pack_spec, unpack_need
from flow_executors.worker.packets import FILES, FRAME, TOLD

_NEVER = -1.0

log = logging.getLogger("flow.manager")


@dataclass(slots=True)
class RemoteWorker:
    """A worker of another rank. ``unstarted``: what a dead one had not begun."""

    rank: int
    pid: int
    depth: int = 1
    unstarted: Sequence[tuple[int, bytes]] = ()

    def take_back(self, count: int) -> list[tuple[int, bytes]]:
        """Return the tasks that a dead worker had not started."""
        return list(self.unstarted[:count])

    def close(self) -> None:
        """Do nothing: its pipes are its rank's."""


class RankHealth:
    """Looks now and then which ranks are silent."""

    def __init__(self, liveness: RankLiveness) -> None:
        self._liveness = liveness
        self.due = 0.0
        """When to look next."""

    def bound(self, bound_s: float) -> None:
        """Set the seconds of silence after which a rank is given up."""
        self._liveness.threshold_s = bound_s

    def answered(self) -> None:
        """Do nothing: ranks tell by themselves that they live."""

    def look(
        self,
        workers: Mapping[int, WorkerEntry],
        now: float,
        of_ranks: Collection[int] = (),
        commands: Mapping[int, int] = NO_COMMANDS,
    ) -> str:
        """Return which rank is silent, in words; else nothing. Tasks of ranks do not run here."""
        self.due = now + self._liveness.pause_s
        return self._liveness.silent(now)


class RankPool:
    """The workers.

    Args:
        channel: The way to the ranks.
        world: Who is where.
        blobs: Code that this rank has.
        files: What takes messages about files from ranks.
        threshold_s: Seconds of silence after which a rank is given up.
    """

    def __init__(
        self, channel: RankChannel, world: World, blobs: BlobFiles, files: RankFiles, threshold_s: float
    ) -> None:
        self._channel = channel
        self._world = world
        self._worker_of = {rank: worker for worker, rank in enumerate(world.ranks)}
        self._blobs = blobs
        self._files = files
        self._specs: dict[int, set[int]] = {}  # rank -> classes that it knows
        self._needing: dict[bytes, set[int]] = {}  # blob -> ranks that wait for it
        self._late: list[tuple[int, int, bytes]] = []  # taken while this rank was being ended
        self._done: set[int] = set()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.samples: list[bytes] = []
        """EVENTS to be passed on."""
        self.notices: list[str] = []
        """What the log of the run should have."""
        self.lost = ""
        """Why no worker of some rank can be had any more; empty while there is no reason."""
        self.liveness = RankLiveness(world, threshold_s, time.monotonic())
        self.neighbour = Neighbour(world.seats[0].neighbour)
        self.envelopes = TaskEnvelopes()
        self.shared_results = SharedMemoryResults()

    # -- as of a pool of the manager's own node

    def fileno(self) -> int:
        """Return a descriptor that stands for the ranks: MPI has none, so ``waiting`` is asked."""
        return self._wake_fd

    @property
    def waiting(self) -> bool:
        """Whether there are messages of ranks."""
        return self._channel.waiting

    def watch(self, replace: Callable[[int, str], None], notice: Callable[[str], None], bound_s: float) -> RankHealth:
        """Return what looks for silent ranks; for stopped workers each rank looks itself."""
        return RankHealth(self.liveness)

    def spawn(self, rank: int) -> None:
        """Ask for a worker."""
        self._tell(rank, RankMessage.SPAWN)

    def pipes_of(self, rank: int) -> WorkerPipes | None:
        """Return None: no worker is on this rank."""
        return None

    def tell(self, rank: int, pid: int) -> None:
        """Ask to tell the task of a worker that its block ends."""
        self._tell(rank, RankMessage.TELL, PID.pack(pid))

    def kill(self, rank: int, age_s: float | None) -> None:
        """Ask to end a worker with all that its task has started."""
        self._tell(rank, RankMessage.KILL, AGE.pack(_NEVER if age_s is None else age_s))

    def sweep(self, rank: int, pid: int, age_s: float) -> None:
        """Ask to end what the task of a dead worker has left behind."""
        self._tell(rank, RankMessage.SWEEP, SWEEP.pack(pid, age_s))

    def hand_out(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Send tasks to ranks; all can be sent."""
        for worker, key, record, class_id, _ in assignments:
            rank = self._world.ranks[worker]
            if class_id != DEFAULT_CLASS:
                self._describe(rank, class_id)
            self._channel.send(rank, RankMessage.TASK, TASK.pack(class_id, key) + record)
        return []

    def _describe(self, rank: int, class_id: int) -> None:
        known = self._specs.setdefault(rank, set())
        if class_id not in known:
            known.add(class_id)
            spec = self.envelopes.spec(class_id) or DEFAULT_SPEC
            self._channel.send(rank, RankMessage.SPEC, pack_spec(class_id, spec))

    def take_back(self, rank: int, count: int) -> list[tuple[int, Record]]:
        """Return nothing: what a rank was given counts as begun."""
        return []

    def pool_events(self) -> PoolEvents:
        """Take the messages of ranks, without blocking."""
        events = PoolEvents()
        now = time.monotonic()
        late, self._late = self._late, []
        for rank, kind, message in (*late, *self._channel.receive()):
            self.liveness.heard(rank, now)
            try:
                self._take(events, rank, RankMessage(kind), message)
            except (BadMessage, ValueError) as error:
                self.notices.append(f"a message of rank {rank} was dropped: {error}")
        return events

    def _take(self, events: PoolEvents, rank: int, kind: RankMessage, message: bytes) -> None:
        worker = self._worker_of.get(rank, -1)
        match kind:
            case RankMessage.FRAMES:
                frames = frames_of(message)
                events.files += [(frame[0], bytes(frame[4])) for frame in frames if frame[3] == FILES]
                events.told += [(worker, frame[0]) for frame in frames if frame[3] == TOLD]
                results = [frame for frame in frames if frame[3] < TOLD]
                if results:
                    events.results.append((worker, results))
            case RankMessage.READY:
                events.ready.append(RemoteWorker(worker, PID.unpack(message)[0]))
            case RankMessage.NEED:
                self._need(events, rank, message)
            case RankMessage.FILE:
                self._files.from_rank(rank, message)
            case RankMessage.SAMPLES:
                self.samples.append(message)
            case RankMessage.NOTICE:
                self.notices.append(message.decode(errors="replace"))
            case RankMessage.DIED:
                report, unstarted = unpack_died(worker, message)
                events.died.append((report, RemoteWorker(worker, report.pid, unstarted=unstarted)))
            case RankMessage.FAILED:
                events.failed.append(NotSpawned(worker, message.decode(errors="replace")))
            case RankMessage.GONE:
                self.lost = self.lost or f"rank {rank} on node {self._world.homes[rank]}: {message.decode()}"
            case RankMessage.BEAT:
                self._channel.send(rank, RankMessage.ECHO, ECHO.pack(*BEAT.unpack(message), time.time_ns()))
            case RankMessage.ENDING:
                self.liveness.ending(rank)
            case RankMessage.FELL:
                self.liveness.fallen(*FELL.unpack(message))
            case RankMessage.DONE:
                self._done.add(rank)
            case _:
                raise BadMessage(f"rank 0 does not take {kind.name}")

    def abandon(self, reason: str) -> PoolEvents:
        """Give up: with the job all ranks end."""
        self.lost = self.lost or reason
        return PoolEvents()

    # -- what only ranks have

    def _tell(self, worker: int, kind: RankMessage, data: bytes = b"") -> None:
        self._channel.send(self._world.ranks[worker], kind, data)

    def tell_all(self, kind: RankMessage, data: bytes = b"") -> None:
        """Send a message to all ranks."""
        for rank in self._world.ranks:
            self._channel.send(rank, kind, data)

    def tell_file(self, rank: int, message: bytes) -> None:
        """Send FILE to a rank."""
        self._channel.send(rank, RankMessage.FILE, message)

    def registered(self, number: int) -> None:
        """The manager is registered under a number."""
        self.tell_all(RankMessage.NUMBER, NUMBER.pack(number))

    def _need(self, events: PoolEvents, rank: int, message: bytes) -> None:
        for digest in unpack_need(message):
            if self._blobs.missing((digest,)):
                # Asked for once, however many ranks wait for it: at the start of a run all do.
                if digest not in self._needing:
                    events.needed.append(digest)
                self._needing.setdefault(digest, set()).add(rank)
            else:
                self._send_blob(digest, (rank,))

    def blobs_came(self) -> None:
        """Send ranks what they wait for, as far as it is here by now."""
        here = [digest for digest in self._needing if not self._blobs.missing((digest,))]
        for digest in here:
            self._send_blob(digest, self._needing.pop(digest))

    def _send_blob(self, digest: bytes, ranks: Sequence[int] | set[int]) -> None:
        pieces = pack_blob(digest, self._blobs.read(digest))
        for rank in ranks:
            for piece in pieces:
                self._channel.send(rank, RankMessage.BLOB, piece)

    def why_ended(self, signal: str, patience_s: float) -> str:
        """Return why this rank was told by a signal to end: waits for what others say of that, not for long."""
        log.info("%s came: asking the others why", signal)
        deadline = time.monotonic() + patience_s
        liveness = self.liveness
        self.look_at_neighbour()
        while liveness.fell is None and not liveness.everybody() and time.monotonic() < deadline:
            # All other messages are for the next turn: the results among them still count.
            for rank, kind, message in self._channel.receive():
                self._late.append((rank, kind, message))
                if kind == RankMessage.ENDING:
                    liveness.ending(rank)
                elif kind == RankMessage.FELL:
                    liveness.fallen(*FELL.unpack(message))
            self.look_at_neighbour()
            time.sleep(LOOK_S)
        why = liveness.why(signal)
        log.info("%d ranks were told to end: %s", liveness.told, why)
        return why

    def look_at_neighbour(self) -> bool:
        """Tell whether the next rank of this node has ended."""
        who = self.neighbour.ended()
        if who is not None:
            self.liveness.fallen(*who)
        return who is not None

    def close(self, timeout_s: float) -> bool:
        """Have all ranks end their workers; return whether they have said so in time."""
        self.tell_all(RankMessage.BYE)
        deadline = time.monotonic() + timeout_s
        while len(self._done) < len(self._world.ranks) and time.monotonic() < deadline:
            for rank, kind, _ in self._channel.receive():
                if kind == RankMessage.DONE:
                    self._done.add(rank)
            time.sleep(LOOK_S)
        os.close(self._wake_fd)
        self.neighbour.close()
        return len(self._done) == len(self._world.ranks)


def frames_of(message: bytes) -> list[Frame]:
    """Cut FRAMES into results, as a worker wrote them. Raises BadMessage."""
    found: list[Frame] = []
    view, at = memoryview(message), 0
    while at < len(view):
        if len(view) - at < FRAME.size:
            raise BadMessage("a rank sent part of a result")
        size, key, start, end, status = FRAME.unpack_from(view, at)
        at += FRAME.size
        if len(view) - at < size:
            raise BadMessage("a rank sent part of a result")
        found.append((key, start, end, status, view[at : at + size]))
        at += size
    return found


def pack_frames(frames: Sequence[Frame], offset_ns: int = 0) -> bytes:
    """Pack results; times are moved by the offset of the sender's clock."""
    parts: list[bytes | memoryview] = []
    for key, start, end, status, payload in frames:
        moved = (start + offset_ns, end + offset_ns) if start else (start, end)
        parts += (FRAME.pack(len(payload), key, *moved, status), payload)
    return b"".join(parts)
