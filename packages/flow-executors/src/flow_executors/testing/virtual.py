"""A whole executor in virtual time: the pure cores of interchange and managers, with messages that take a while.

No process, socket or clock: a mix of tasks of any lengths is run through the real decisions in milliseconds, and what
they come to can be held against the ideal schedule.
"""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from flow_core.interfaces.call import TaskSpec
from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.interchange.interchange_core import InterchangeCore
from flow_executors.interchange.settings import CoreSettings
from flow_executors.manager.manager_core import ManagerCore, Record
from flow_executors.manager.round_trips import LEAST_S
from flow_executors.wire.kinds import Kind, kind_of
from flow_executors.wire.messages import (
    ALL,
    DEFAULT_CLASS,
    Credit,
    PeerInfo,
    Registration,
    pack_credit,
    pack_hello,
    pack_register,
    pack_spec,
    unpack_count,
    unpack_credit,
    unpack_spec,
    unpack_welcome,
)
from flow_executors.wire.ranks import RANKS_VERSION, RankPlacement, unpack_placement, unpack_release, unpack_reserve
from flow_executors.wire.results import pack_results, unpack_results
from flow_executors.wire.tasks import pack_record, pack_tasks, unpack_tasks

HOP_S = 150e-6
"""Seconds that a message takes, about what one takes between processes of one machine."""
COALESCE_S = 200e-6
"""Seconds that results wait for others, as in a real manager."""
# Packets that a worker's pipe holds, as in a real manager.
_PIPE = 63
_BATCH = 256
_DIGEST = bytes(16)
# Virtual seconds after which nothing can happen any more: the run would not end.
_DEADLINE_S = 1e6


def ideal_s(durations: Sequence[float], slots: int) -> float:
    """Return when all are done if every slot takes the next task the moment that it is free, and nothing takes time."""
    free = [0.0] * slots
    heapify(free)
    for seconds in durations:
        heapreplace(free, free[0] + seconds)
    return max(free)


class VirtualRun:
    """One client, one interchange, several managers.

    Args:
        slots: Workers of each manager.
        prefetch: The option ``prefetch_capacity`` of all.
        trip_s: How long a message from a manager and the answer take.
        blocks: Block of each manager; all of one where not given.
    """

    def __init__(
        self,
        slots: Sequence[int],
        prefetch: int | None = None,
        trip_s: float = 2 * HOP_S,
        blocks: Sequence[str] | None = None,
    ) -> None:
        self.trip_s = trip_s
        self.now = 0.0
        self.ended: dict[int, float] = {}
        """When each task's result reached the client."""
        self.started: dict[int, int] = {}
        """How often each task was started."""
        self.begun: dict[int, float] = {}
        """When each task was started."""
        self.placements: dict[int, RankPlacement] = {}
        """Where tasks of ranks were placed."""
        self.recalls = 0
        self.steals = 0
        version = platform.python_version()
        settings = CoreSettings("virtual", version, heartbeat_threshold_s=_DEADLINE_S)
        self.core = InterchangeCore(settings, PeerInfo("interchange", "virtual", version), lambda: int(self.now * 1e9))
        self.durations: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._queues: dict[int, deque[int]] = {}
        self._out: dict[int, int] = {}
        self._class_of: dict[int, int] = {}
        self._window = 1024
        self._tick_at: float | None = None
        names = blocks or ["0"] * len(slots)
        self._nodes = [VirtualNode(self, index, each, prefetch, names[index]) for index, each in enumerate(slots)]
        self._by_peer = {node.peer: node for node in self._nodes}
        for node in self._nodes:
            node.register()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen later."""
        heappush(self._events, (self.now + seconds, next(self._numbers), act))

    def run(self, durations: Mapping[int, float], specs: Mapping[int, TaskSpec] | None = None) -> float:
        """Run tasks, key -> seconds, submitted at once in that order; return when the last result was there.

        Args:
            durations: How long each takes.
            specs: Classes of tasks that are not of the default one, by key.
        """
        self.durations.update(durations)
        classes: dict[TaskSpec, int] = {}
        for key in durations:
            spec = specs.get(key) if specs else None
            class_id = DEFAULT_CLASS if spec is None else classes.setdefault(spec, len(classes) + 1)
            self._class_of[key] = class_id
            self._queues.setdefault(class_id, deque()).append(key)
        for spec, class_id in classes.items():
            self._tell(pack_spec(class_id, spec))
        self._feed()
        while self._events and len(self.ended) < len(self.durations):
            self.now, _, act = heappop(self._events)
            assert self.now < _DEADLINE_S, "nothing happens any more"
            act()
        assert len(self.ended) == len(self.durations), "tasks were forgotten"
        return max(self.ended.values())

    # -- the client

    def _tell(self, message: bytes) -> None:
        def act() -> None:
            self.core.from_client(message, self.now)
            self.turn()

        self.after(HOP_S, act)

    def _feed(self) -> None:
        """Send what the window allows."""
        for class_id, queue in self._queues.items():
            while queue and (room := self._window - self._out.get(class_id, 0)) > 0:
                keys = [queue.popleft() for _ in range(min(room, _BATCH, len(queue)))]
                self._out[class_id] = self._out.get(class_id, 0) + len(keys)
                self._tell(pack(class_id, keys, Kind.TASKS))

    def _read_reports(self, message: bytes) -> None:
        kind = kind_of(message)
        if kind == Kind.CREDIT:
            self._window = unpack_credit(message).window
        elif kind == Kind.RESULTS:
            for key in unpack_results(message).keys:
                assert key not in self.ended, "a second outcome"
                self.ended[key] = self.now
                self._out[self._class_of[key]] -= 1
        self._feed()

    # -- the interchange

    def to_interchange(self, peer: bytes, message: bytes) -> None:
        """A message of a manager is on its way."""
        block = self._by_peer[peer].block

        def act() -> None:
            self.core.from_peer(peer, block, message, self.now)
            self.turn()

        self.after(self.trip_s / 2, act)

    def turn(self) -> None:
        """End a turn of the interchange."""
        core = self.core
        core.turn(self.now)
        for message in core.to_client:
            self.after(HOP_S, lambda message=bytes(message): self._read_reports(message))  # type: ignore[misc] # binds now
        core.to_client.clear()
        core.delivered(True)
        for peer, message in core.to_managers:
            node = self._by_peer[peer]
            self.after(self.trip_s / 2, lambda node=node, message=bytes(message): node.hear(message))  # type: ignore[misc]
        core.to_managers.clear()
        due = core.next_deadline(self.now)
        if due is not None and due < _DEADLINE_S and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            self.after(max(0.0, due - self.now), self._tick)

    def _tick(self) -> None:
        self._tick_at = None
        self.core.tick(self.now)
        self.turn()


class VirtualNode:
    """One manager: its core, and workers that sleep."""

    def __init__(self, run: VirtualRun, index: int, slots: int, prefetch: int | None, block: str = "0") -> None:
        self.peer = b"%d" % index
        self.block = block
        self.number = 0
        self._specs: dict[int, TaskSpec] = {}
        self._placed: dict[int, RankPlacement] = {}
        self._wants: dict[int, int] = {}
        self._takes: dict[int, int] = {}  # slots of what runs here, and of parts
        self._run = run
        self._slots = slots
        self._core = ManagerCore(Capacity(slots, memory_mb=0), prefetch)
        self._pipes: dict[int, deque[tuple[int, Record]]] = {rank: deque() for rank in range(slots)}
        self._running: dict[int, int] = {}
        self._results: list[int] = []
        self._sequence = 0
        self._last_send = -1.0
        self._sending = False
        self._recall_open = False
        self._credit = (slots, 0)
        self._wake_at: float | None = None
        for rank in self._pipes:
            self._core.worker_up(rank, rank + 1, _PIPE, 0.0)

    def register(self) -> None:
        """Say hello and offer the workers."""
        version, send = platform.python_version(), self._run.to_interchange
        send(self.peer, pack_hello(PeerInfo("manager", "virtual", version)))
        offer = Registration(
            f"m{self.peer.decode()}",
            self.block,
            f"n{self.peer.decode()}",
            1,
            self._slots,
            0,
            float(self._slots),
            python=version,
            ranks=RANKS_VERSION,
        )
        send(self.peer, pack_register(0, offer, ()))

    def hear(self, message: bytes) -> None:
        """Take a message of the interchange."""
        kind = kind_of(message)
        if kind == Kind.TASKS:
            batch = unpack_tasks(message)
            for key in batch.keys:
                if key in self._placed:
                    demand = ResourceRequest.of(self._specs[batch.class_id], self._core.capacity)
                    self._core.place(key, replace(demand, slots=self._placed[key].head.slots))
            self._core.accept(batch.class_id, list(zip(batch.keys, batch.records(), strict=True)))
        elif kind == Kind.SPEC:
            class_id, spec = unpack_spec(message)
            self._specs[class_id] = spec
            self._core.add_class(class_id, ResourceRequest.of(spec, self._core.capacity))
        elif kind == Kind.PLACEMENT:
            key, placement = unpack_placement(message)
            self._placed[key] = self._run.placements[key] = placement
        elif kind == Kind.RESERVE:
            for part in unpack_reserve(message).parts:
                self._core.reserve(part.key, ResourceRequest(part.slots, part.memory_mb, part.gpus))
                self._occupy(part.key, part.slots)
        elif kind == Kind.RELEASE:
            for key in unpack_release(message):
                self._core.release(key)
                del self._takes[key]
        elif kind == Kind.WELCOME:
            self.number = unpack_welcome(message).manager
            self._core.estimator.link(self._run.trip_s if self._run.trip_s >= LEAST_S else 0.0)
        elif kind == Kind.RECALL:
            self._run.recalls += 1
            self._recall_open = True
            wanted = unpack_count(message, Kind.RECALL)
            self._core.recall(1 << 30 if wanted == ALL else wanted)
        self._turn()

    def _occupy(self, key: int, slots: int) -> None:
        self._takes[key] = slots
        assert sum(self._takes.values()) <= self._slots, f"node {self.peer.decode()} is booked twice"

    def _turn(self) -> None:
        core, now = self._core, self._run.now
        for rank, wanted in core.readbacks(now):
            pipe = self._pipes[rank]
            self._run.steals += 1
            core.took_back(rank, [pipe.popleft() for _ in range(min(wanted, len(pipe)))])
        for assignment in core.assign(now):
            self._pipes[assignment.rank].append((assignment.key, assignment.record))
            self._slots_of(assignment.key, assignment.class_id)
            self._start(assignment.rank)
        effects = core.take_effects()
        if effects.returned or (self._recall_open and not core.recalling()):
            self._give_back(effects.returned)
        self._send()
        credit = (self._slots, core.estimator.prefetch)
        if credit != self._credit:
            self._credit = credit
            self._run.to_interchange(self.peer, pack_credit(Credit(1, *credit, 0)))
        due = core.deadline(now)
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = due
            self._run.after(max(10e-6, due - now), self._wake)

    def _wake(self) -> None:
        self._wake_at = None
        self._turn()

    def _start(self, rank: int) -> None:
        pipe = self._pipes[rank]
        if rank not in self._running and pipe:
            key, _ = pipe.popleft()
            self._running[rank] = key
            started = self._run.started
            started[key] = started.get(key, 0) + 1
            self._run.begun[key] = self._run.now
            self._occupy(key, self._wants.pop(key, 1))
            self._run.after(self._run.durations[key], lambda: self._done(rank))

    def _slots_of(self, key: int, class_id: int) -> None:
        """Note what a task will take once it starts."""
        if key in self._placed:
            self._wants[key] = self._placed.pop(key).head.slots
        elif class_id:
            self._wants[key] = ResourceRequest.of(self._specs[class_id], self._core.capacity).slots

    def _done(self, rank: int) -> None:
        key = self._running.pop(rank)
        del self._takes[key]
        self._start(rank)  # a worker does not wait for its manager
        self._results.append(key)
        self._core.finished(rank, [key], self._run.durations[key], self._run.now)
        self._turn()

    def _give_back(self, returned: Sequence[tuple[int, int, Record]]) -> None:
        classes: dict[int, list[int]] = {}
        for class_id, key, _ in returned:
            classes.setdefault(class_id, []).append(key)
        last = self._recall_open and not self._core.recalling()
        default = classes.pop(DEFAULT_CLASS, [])
        for class_id, keys in classes.items():
            self._run.to_interchange(self.peer, pack(class_id, keys, Kind.RETURNED))
        if default or last:
            self._run.to_interchange(self.peer, pack(DEFAULT_CLASS, default, Kind.RETURNED, last))
        self._recall_open = self._recall_open and not last

    def _send(self) -> None:
        """Send results, at once or with those of the next 200 us."""
        rest = self._last_send + COALESCE_S - self._run.now
        if rest > 0 and not self._core.quiet:
            if self._results and not self._sending:
                self._sending = True
                self._run.after(rest, self._flush)
        elif self._results:
            self._flush()

    def _flush(self) -> None:
        self._sending = False
        if not self._results:
            return
        self._sequence += 1
        keys, self._results = self._results, []
        self._last_send = self._run.now
        zeros, size = [0] * len(keys), len(keys)
        message = pack_results(self.number, self._sequence, 0, keys, zeros, zeros, zeros, bytes(size), [b""] * size)
        self._run.to_interchange(self.peer, message)


def pack(class_id: int, keys: Sequence[int], kind: Kind, last: bool = False) -> bytes:
    """Pack tasks without arguments."""
    records = [pack_record(_DIGEST, key, class_id, b"") for key in keys]
    return pack_tasks(class_id, (), keys, [len(r) for r in records], b"".join(records), kind=kind, last=last)
