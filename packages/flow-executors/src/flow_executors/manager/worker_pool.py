"""The workers of a manager: started, written to, read from, and replaced when they die. No decision about tasks.

One epoll covers all result pipes and the fork server, whose own descriptor is polled by the event loop: its cost does
not grow with the number of workers.
"""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from flow_core.errors import ExecutorError
from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_core.interfaces.outcome import Loss, LossKind, Verdict
from flow_core.remote.faults import is_armed, point
from flow_executors.common.large_results import CLIENT, MANAGER, sign, signed
from flow_executors.errors import BadMessage
from flow_executors.manager import process_trees
from flow_executors.manager.code_cache import memory_file
from flow_executors.manager.fork_client import Answered, Died, ForkServerClient, ForkServerGone, NotSpawned, Spawned
from flow_executors.manager.manager_core import Assignment, Record
from flow_executors.manager.node import accelerator_environment
from flow_executors.manager.worker_health import WorkerHealth
from flow_executors.wire.messages import pack_loss
from flow_executors.wire.results import BUFFERS, USAGE, USAGE_SIZE
from flow_executors.wire.tasks import pack_buffers, unpack_buffers
from flow_executors.worker.packets import (
    ENVELOPE_ROOM,
    FILES,
    FRAME,
    NEED,
    PACKET,
    READY,
    TOLD,
    key_of,
    made_plain,
    pack_envelope,
    pack_envelope_to_file,
)

# Bytes read at once, as many as a pipe holds by default: many small results a call.
_ROOM = 65_536
# Bytes of a frame above which it is read into a buffer of its own size: joining pieces is quadratic, and a result of
# 100 MB never ended.
_BIG = 65_536

Frame = tuple[int, int, int, int, bytes | memoryview]
"""key, start, end, status, payload"""


class FrameReader:
    """One pipe of results, which does not block. One thread, or several under one lock.

    Args:
        fd: Descriptor of the pipe's read end.
        longest: Most bytes of a payload.

    Attributes:
        eof: Whether no process holds the worker's end any more: it is dead, or has closed all its files.
    """

    __slots__ = ("_big", "_fd", "_filled", "_longest", "_rest", "eof")

    def __init__(self, fd: int, longest: int = 0xFFFFFFFF) -> None:
        self._fd = fd
        self._longest = longest
        self.eof = False
        self._rest = b""
        self._big: bytearray | None = None
        self._filled = 0

    def read(self) -> list[Frame]:
        """Read once and return the frames completed by it.

        Raises:
            BadMessage: a payload is longer than any can be: what was read is no stream of frames.
        """
        if self._big is not None:
            return self._fill(self._big)
        try:
            data = os.read(self._fd, _ROOM)
        except BlockingIOError:
            return []
        self.eof = not data
        # Without a rest, the common case, nothing is copied.
        return self._cut(self._rest + data if self._rest else data)

    def read_all(self) -> list[Frame]:
        """Read all that a dead worker had written; a frame that it did not finish is dropped."""
        found: list[Frame] = []
        while True:
            # An empty read may only mean that a frame is not whole yet: the end is where nothing moves any more.
            before = self._filled, len(self._rest)
            frames = self.read()
            found += frames
            if not frames and before == (self._filled, len(self._rest)):
                return found

    def _cut(self, data: bytes) -> list[Frame]:
        found: list[Frame] = []
        unpack, head, at, end = FRAME.unpack_from, FRAME.size, 0, len(data)
        while end - at >= head:
            size, key, start, stop, status = unpack(data, at)
            next_at = at + head + size
            if next_at > end:
                # Checked before there is room for it: tasks can write into the pipe, and noise announces any length.
                if size > self._longest:
                    raise BadMessage(f"a worker wrote what is no result: {size} bytes of one")
                if size > _BIG:
                    self._begin_big(data[at:], head + size)
                    return found
                break
            found.append((key, start, stop, status, data[at + head : next_at]))
            at = next_at
        self._rest = data[at:]
        return found

    def _begin_big(self, data: bytes, size: int) -> None:
        """From here on read straight into a buffer of the frame's size: joining pieces would be quadratic."""
        self._rest = b""
        self._big = bytearray(size)
        self._big[: len(data)] = data
        self._filled = len(data)

    def _fill(self, big: bytearray) -> list[Frame]:
        try:
            count = os.readv(self._fd, [memoryview(big)[self._filled :]])
        except BlockingIOError:
            return []
        self.eof = not count
        self._filled += count
        if self._filled < len(big):
            return []
        _, key, start, stop, status = FRAME.unpack_from(big)
        self._big, self._filled = None, 0
        return [(key, start, stop, status, memoryview(big)[FRAME.size :])]


_NO_FILE = -1


class TaskEnvelopes:
    """The envelopes that are out, with their files. One thread."""

    def __init__(self) -> None:
        self._specs: dict[int, TaskSpec] = {}
        self._out: dict[int, tuple[Record, int]] = {}  # key -> record and file
        self._variables: dict[int, tuple[tuple[str, str], ...]] = {}  # of tasks that have some of their own

    def give(self, key: int, variables: Mapping[str, str]) -> None:
        """Note variables that the worker of a task is to have, beside those of its devices."""
        self._variables[key] = tuple(variables.items())

    def learn(self, class_id: int, spec: TaskSpec) -> None:
        """Note the specification that goes with tasks of a class."""
        self._specs[class_id] = spec

    def spec(self, class_id: int) -> TaskSpec | None:
        """Return the specification of a class; None where it is not known."""
        return self._specs.get(class_id)

    def packet(self, assignment: Assignment) -> Record:
        """Return what to write into the pipe.

        Raises:
            OSError: there is no descriptor or memory left for a file.
        """
        record = assignment.record
        # The common case: the record is the packet.
        if not assignment.class_id and len(record) <= PACKET:
            return record
        variables = tuple(accelerator_environment(",".join(assignment.devices)).items()) if assignment.devices else ()
        variables += self._variables.get(assignment.key, ())
        extra = pickle.dumps((self._specs.get(assignment.class_id, DEFAULT_SPEC), variables), 5)
        if len(extra) + len(record) <= ENVELOPE_ROOM:
            # Kept until the task ends: a packet that is read back gives only the key, the record is needed again.
            self._out[assignment.key] = record, _NO_FILE
            return pack_envelope(assignment.key, assignment.class_id, extra, record)
        file = memory_file("flow-task", b"".join((extra, record)))
        self._out[assignment.key] = record, file
        return pack_envelope_to_file(assignment.key, assignment.class_id, len(extra), file)

    def opened(self, packets: Iterable[tuple[int, bytes]]) -> list[tuple[int, Record]]:
        """Turn packets that were read back into records again."""
        return [(key, self._close(key, packet)) for key, packet in packets]

    def done(self, keys: Collection[int]) -> None:
        """Forget envelopes whose tasks have ended."""
        if self._out:
            for key in keys:
                self._close(key, b"")
        if self._variables:
            for key in keys:
                self._variables.pop(key, None)

    def _close(self, key: int, packet: bytes) -> Record:
        record, file = self._out.pop(key, (packet, _NO_FILE))
        if file != _NO_FILE:
            os.close(file)
        return record


class WorkerEnds(Protocol):
    """What the manager's loop has of one worker."""

    rank: int
    pid: int
    depth: int

    def take_back(self, count: int) -> list[tuple[int, bytes]]:
        """Return up to ``count`` tasks that the worker has not started, oldest first, as (key, packet)."""
        ...

    def close(self) -> None:
        """Let go of a worker that is dead."""
        ...


class WorkerPipes:
    """The pipes of one worker. Nothing blocks; one thread. ``direct_out`` is only kept open here, for the script."""

    __slots__ = ("_back", "_reader", "depth", "direct_out", "pid", "rank", "result_out", "task_in")

    def __init__(self, spawned: Spawned) -> None:
        self.rank = spawned.rank
        self.pid = spawned.pid
        self.depth = spawned.depth
        self.task_in = spawned.task_in
        self.result_out = spawned.result_out
        self.direct_out = spawned.direct_out
        # O_NONBLOCK belongs to the open file, which the worker shares: reading back needs an open file of its own.
        self._back = os.open(f"/proc/self/fd/{spawned.task_back}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(spawned.task_back)
        os.set_blocking(self.task_in, False)
        os.set_blocking(self.result_out, False)
        self._reader = FrameReader(self.result_out)

    @property
    def eof(self) -> bool:
        """Whether no process holds the worker's end any more: it is dead, or has closed all its files."""
        return self._reader.eof

    def put(self, packet: bytes | memoryview) -> bool:
        """Write one packet; False if the pipe is full."""
        try:
            os.write(self.task_in, packet)
        except BlockingIOError:
            return False
        return True

    def take_back(self, count: int) -> list[tuple[int, bytes]]:
        """Read up to ``count`` packets that the worker has not taken, oldest first, as (key, packet)."""
        taken = []
        for _ in range(count):
            try:
                packet = os.read(self._back, PACKET)
            except BlockingIOError:
                break
            if not packet:
                break
            taken.append((key_of(packet), made_plain(packet)))
        return taken

    def frames(self) -> list[Frame]:
        """Read once and return the frames completed by it."""
        return self._reader.read()

    def last_frames(self) -> list[Frame]:
        """Read all that a dead worker had written; a frame that it did not finish is dropped."""
        return self._reader.read_all()

    def close(self) -> None:
        """Close all ends; the worker then ends by itself when it is idle."""
        for fd in (self.task_in, self._back, self.result_out, self.direct_out):
            if fd >= 0:
                os.close(fd)


# Seconds between looks whether the client has taken results in shared memory: they keep their memory until then.
SWEEP_S = 0.05
# Files of results that may be out, each with a descriptor: beyond that their content goes into the message.
_MOST_FILES = 256


@dataclass(frozen=True, slots=True)
class _SharedMemoryResult:
    """A file that the client has not opened yet."""

    descriptor: int
    size: int


class SharedMemoryResults:
    """The files of results that are out. One thread.

    Attributes:
        same_host: Whether the client can open files of this process; else their content goes into the message.
    """

    def __init__(self) -> None:
        self.same_host = False
        self._out: list[_SharedMemoryResult] = []

    def __len__(self) -> int:
        return len(self._out)

    def taken_over(self, frame: Frame) -> Frame:
        """Return the frame of a result as it is to be sent, with its file in the hands of this process."""
        key, start, end, status, payload = frame
        view = memoryview(payload)
        head = USAGE_SIZE if status & USAGE else 0
        try:
            refs, rest = unpack_buffers(view[head:])
            descriptor = os.open(refs[0].hint, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, IndexError) as error:
            reason = f"the worker died before its large result was taken over: {error}"
            return key, start, end, int(Verdict.LOST), pack_loss(Loss(LossKind.WORKER, reason=reason))
        # From here the worker may close its own descriptor: the file is this process's.
        sign(descriptor, MANAGER)
        # Less the receipt, the byte at the end by which each holder signs.
        size = os.fstat(descriptor).st_size - 1
        if self.same_host and len(self._out) < _MOST_FILES:
            self._out.append(_SharedMemoryResult(descriptor, size))
            content = pack_buffers([replace(ref, hint=f"/proc/{os.getpid()}/fd/{descriptor}") for ref in refs])
        else:
            content = pack_buffers([replace(ref, hint="") for ref in refs]) + _whole(descriptor, size)
            os.close(descriptor)
        return key, start, end, status, b"".join((view[:head], content, rest))

    def sweep(self) -> None:
        """Close the files that the client has opened."""
        for shared in self._out:
            # While the client has it mapped the memory stays; here only the descriptor goes.
            if signed(shared.descriptor, shared.size, CLIENT):
                os.close(shared.descriptor)
                self._out = [other for other in self._out if other is not shared]

    def close(self) -> None:
        """Close the descriptors of all results that are out; what the client has opened stays its own."""
        for shared in self._out:
            os.close(shared.descriptor)
        self._out.clear()


def _whole(descriptor: int, size: int) -> bytes:
    pieces, at = [], 0
    while at < size:
        pieces.append(os.pread(descriptor, size - at, at))
        at += len(pieces[-1])
    return b"".join(pieces)


# Workers in a row that may die before they are ready: then the node, not a task, is at fault.
_PATIENCE = 3
# Seconds before a worker is replaced, by the number of failures in a row: at once for one that had been ready.
_PAUSES_S = (0.0, 0.5, 1.0)


class RespawnPolicy:
    """Counts the workers that died before they were ready, one after another."""

    __slots__ = ("_due", "_failures")

    def __init__(self) -> None:
        self._failures = 0
        self._due: dict[int, float] = {}

    def ready(self) -> None:
        """A worker became ready: all is well."""
        self._failures = 0

    def died(self, rank: int, was_ready: bool, now: float) -> bool:
        """A worker died, or could not be forked: note when to replace it. False when that has no prospect."""
        # A worker that had been ready died of a task, which says nothing against the node.
        if not was_ready:
            self._failures += 1
        if self._failures >= _PATIENCE:
            return False
        self._due[rank] = now + _PAUSES_S[self._failures]
        return True

    def due(self, now: float) -> list[int]:
        """Return the ranks to start now, once."""
        ranks = [rank for rank, when in self._due.items() if when <= now]
        for rank in ranks:
            del self._due[rank]
        return ranks

    def deadline(self) -> float | None:
        """Return when the next one is due."""
        return min(self._due.values()) if self._due else None


# Descriptors that a manager needs besides its workers' pipes: sockets, logs, blobs, files of results. Only the
# magnitude matters.
_FILES = 48
# Descriptors a worker: its task pipe, the read end to read back from, its result pipe, and that of a direct channel.
_FILES_A_WORKER = 4
WorkerSetup = Callable[[int], tuple[dict[str, str], Sequence[int]]]
"""rank -> (environment, CPUs)"""


@dataclass(slots=True)
class PoolEvents:
    """What happened among the workers, gathered in one turn."""

    ready: list[WorkerEnds] = field(default_factory=list)
    results: list[tuple[int, list[Frame]]] = field(default_factory=list)
    """(rank, frames)"""
    needed: list[bytes] = field(default_factory=list)
    files: list[tuple[int, bytes]] = field(default_factory=list)
    """Keys of tasks, and how far files of theirs are."""
    told: list[tuple[int, int]] = field(default_factory=list)
    """Ranks and keys of tasks that were told that their block ends."""
    died: list[tuple[Died, WorkerEnds | None]] = field(default_factory=list)
    """Their pipes still hold what they did not start."""
    failed: list[NotSpawned] = field(default_factory=list)
    gone: bool = False
    """The fork server is dead."""
    answered: bool = False
    """The fork server gave a sign of life."""


class WorkerPool:
    """The workers. One thread."""

    def __init__(self, fork_client: ForkServerClient, setup: WorkerSetup) -> None:
        self.fork_client = fork_client
        self._setup = setup
        self._pipes: dict[int, WorkerPipes] = {}  # by rank
        self._by_fd: dict[int, WorkerPipes] = {}
        self._epoll = select.epoll()
        self._epoll.register(fork_client.fileno(), select.EPOLLIN)
        self.envelopes = TaskEnvelopes()
        self.shared_results = SharedMemoryResults()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are events."""
        return self._epoll.fileno()

    def watch(self, replace: Callable[[int, str], None], notice: Callable[[str], None], bound_s: float) -> WorkerHealth:
        """Return what looks for stopped workers, and a stopped fork server; arguments as of ``WorkerHealth``."""
        return WorkerHealth(self.fork_client, replace, notice, bound_s)

    def spawn(self, rank: int) -> None:
        """Ask for a worker."""
        environment, cpus = self._setup(rank)
        self.fork_client.spawn(rank, environment, cpus)

    def pipes_of(self, rank: int) -> WorkerPipes | None:
        """Return the pipes of a worker; None where there is no worker."""
        return self._pipes.get(rank)

    def tell(self, rank: int, pid: int) -> None:
        """Ask to tell the task of a worker that its block ends; the worker answers if it runs one that asked for it."""
        self.fork_client.tell(rank, pid)

    def kill(self, rank: int, age_s: float | None) -> None:
        """Ask to end a worker with all that its task, begun so long ago, has started."""
        self.fork_client.kill(rank, age_s=age_s)

    def sweep(self, rank: int, pid: int, age_s: float) -> None:
        """Ask to end what the task of a dead worker, begun so long ago, has left behind."""
        self.fork_client.sweep(rank, pid, age_s)

    def hand_out(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Write tasks into pipes; return those whose pipe is full or gone, or for whose file there is no room."""
        # As locals: this runs once a task.
        pipes, write, not_written = self._pipes, os.write, []
        for assignment in assignments:
            rank, _, record, class_id, _ = assignment
            try:
                if class_id or len(record) > PACKET:
                    record = self.envelopes.packet(assignment)
                write(pipes[rank].task_in, record)
            # The pipe is full, its worker has died, or there is no descriptor for a file: in each case the task waits
            # again.
            except (OSError, KeyError):
                self.envelopes.opened(((assignment.key, b""),))
                not_written.append(assignment)
        return not_written

    def take_back(self, rank: int, count: int) -> list[tuple[int, bytes | memoryview]]:
        """Read tasks back that a worker has not started."""
        pipes = self._pipes.get(rank)
        return [] if pipes is None else self.envelopes.opened(pipes.take_back(count))

    def pool_events(self) -> PoolEvents:
        """Read what there is, without blocking."""
        pool_events = PoolEvents()
        fork_client = False
        for fd, _ in self._epoll.poll(0):
            pipes = self._by_fd.get(fd)
            if pipes is None:
                fork_client = True
            else:
                self._sort_frames(pool_events, pipes, pipes.frames())
                if pipes.eof:  # dead, as the fork server will tell; or of no more use
                    self._forget(pipes)
                    self.fork_client.kill(pipes.rank)
        if fork_client:  # after the results, which may be those of the dead
            self._read_reports(pool_events)
        return pool_events

    def _read_reports(self, pool_events: PoolEvents) -> None:
        for report in self.fork_client.receive():
            match report:
                case Spawned():
                    pipes = WorkerPipes(report)
                    self._pipes[report.rank] = self._by_fd[pipes.result_out] = pipes
                    self._epoll.register(pipes.result_out, select.EPOLLIN)
                case Died():
                    pool_events.died.append((report, self._after_death(pool_events, report)))
                case NotSpawned():
                    pool_events.failed.append(report)
                case Answered():
                    pool_events.answered = True
                case ForkServerGone():
                    pool_events.gone = True

    def _after_death(self, pool_events: PoolEvents, report: Died) -> WorkerPipes | None:
        """Read what a dead worker had written; return its pipes, None where they are not known."""
        pipes = self._pipes.get(report.rank)
        # The rank may be a replacement's by now: its pipes are not the dead one's.
        if pipes is None or pipes.pid != report.pid:
            return None
        del self._pipes[report.rank]
        self._forget(pipes)
        self._sort_frames(pool_events, pipes, pipes.last_frames())
        return pipes

    def _forget(self, pipes: WorkerPipes) -> None:
        """Take a worker's result pipe out of the epoll."""
        if self._by_fd.pop(pipes.result_out, None) is not None:
            self._epoll.unregister(pipes.result_out)

    def _sort_frames(self, pool_events: PoolEvents, pipes: WorkerPipes, frames: list[Frame]) -> None:
        if not frames:
            return
        if is_armed:
            point("manager.worker_frames")
        for frame in frames:
            # All other statuses than plain results are above: one comparison a frame keeps the common case short.
            if frame[3] >= BUFFERS:
                break
        else:
            pool_events.results.append((pipes.rank, frames))
            return
        if any(frame[3] == READY for frame in frames):
            pool_events.ready.append(pipes)
        pool_events.needed += [bytes(frame[4]) for frame in frames if frame[3] == NEED]
        pool_events.files += [(frame[0], bytes(frame[4])) for frame in frames if frame[3] == FILES]
        take_over = self.shared_results.taken_over
        pool_events.told += [(pipes.rank, frame[0]) for frame in frames if frame[3] == TOLD]
        results = [take_over(frame) if frame[3] & BUFFERS else frame for frame in frames if frame[3] < TOLD]
        if results:
            pool_events.results.append((pipes.rank, results))

    def abandon(self, reason: str) -> PoolEvents:
        """After the fork server's death: end all that is left of the workers, and report them dead."""
        pool_events = PoolEvents()
        self._epoll.unregister(self.fork_client.fileno())
        for rank, pipes in list(self._pipes.items()):
            # Each worker leads a session, so this ends what its task has started, too.
            process_trees.kill_session(pipes.pid)
            report = Died(rank, pipes.pid, None, signal.SIGKILL, "", f"was killed, since {reason}")
            pool_events.died.append((report, self._after_death(pool_events, report)))
        process_trees.kill_below(os.getpid())  # orphans of tasks, which this process has adopted
        return pool_events

    def close(self, timeout_s: float = 5.0) -> bool:
        """End all workers and the fork server; return whether they ended by themselves."""
        for pipes in self._pipes.values():
            pipes.close()
        self._pipes.clear()
        self._by_fd.clear()
        self._epoll.close()
        self.shared_results.close()
        ended = self.fork_client.close(timeout_s)
        if not ended:
            process_trees.kill_below(os.getpid())
        return ended


def raise_file_limit(workers: int) -> None:
    """Allow this process, and its workers no less, as many descriptors as the system lets it have.

    Raises:
        ExecutorError: they are too few for so many workers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES + _FILES_A_WORKER * workers
    if 0 <= hard < needed:
        raise ExecutorError(
            f"Too many open files: {workers} workers need {needed} descriptors, this node allows {hard}: raise the "
            "hard limit (ulimit -Hn, limits.conf), or lower max_workers"
        )
    # Raised to the limit, not to the need: workers inherit it, and tasks open files of their own.
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return
