"""Batches: which tasks that wait go to an engine next, and how many of them as one task of it. Pure.

Tasks of one class stand in one lane, in the order in which they came; lanes are asked by priority, then by the age of
their first task. An engine is given no more than its slots can begin at once, and as much again of what is known to be
short: so what is left waits here, where it can be taken back, and where a task of higher priority passes it.

The first tasks of a function go alone. Once their times are known, as many go together as take ``_TARGET_S``, if so
many wait that no slot stays empty meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from flow_core.interfaces.call import Resources, TaskSpec, TryKey
from flow_core.remote.script_files import FilesByConnection

MOST = 100
"""Most tasks of one batch, as a rule: more gain nothing, and would be lost together."""
_TARGET_S = 0.05  # seconds of work of a batch, by the longest of the last tasks of its function
_FADES = 0.8  # what is left of a longer time with each shorter one, as a share
_LONGEST_LOOK = 64  # tasks of one lane that are looked at for a batch beyond those that fit
_MOST_FUNCTIONS = 10_000


@dataclass(slots=True, eq=False)
class Waiting:
    """A try that waits for its turn.

    Attributes:
        key: Its key.
        parcel: What is to be sent.
        spec: Its class.
        function: Name of its function, by which its time is guessed.
        order: Its place; smaller ones came before.
        files: Its files, where the engine brings them: it then goes alone.
    """

    key: TryKey
    parcel: bytes
    spec: TaskSpec
    function: str
    order: int = 0
    files: FilesByConnection | None = None


@dataclass(slots=True)
class _Lane:
    spec: TaskSpec
    tries: deque[Waiting] = field(default_factory=deque)
    gone: int = 0  # of these, tries that were taken back


class BatchingCore:
    """The tries of one executor that wait, and what its engine has.

    Attributes:
        slots: Tasks that the engine runs at once.
        reserve: Tasks that it is given though it has no slot, so that it sees that there is something to do.
        target_s: Seconds of work of a batch.
        most: Most tasks of one batch.
    """

    def __init__(self, most: int = MOST, reserve: int = 0) -> None:
        self.slots = 0
        self.reserve = reserve
        self.target_s = _TARGET_S
        self.most = most
        self._lanes: dict[TaskSpec, _Lane] = {}
        self._waiting: dict[TryKey, Waiting] = {}
        self._out: dict[Resources, int] = {}
        self._times: dict[str, float] = {}
        self._count = 0

    @property
    def waiting(self) -> int:
        """Tries that wait."""
        return len(self._waiting)

    def __contains__(self, key: TryKey) -> bool:
        return key in self._waiting

    def add(self, one: Waiting) -> None:
        """Take a try."""
        self._count += 1
        one.order = self._count
        self._waiting[one.key] = one
        self._lane(one.spec).tries.append(one)

    def give_back(self, tries: Collection[Waiting]) -> None:
        """Take back tries that an engine had and has not begun: they come before those that came later."""
        for one in sorted(tries, key=lambda one: -one.order):
            self._waiting[one.key] = one
            self._lane(one.spec).tries.appendleft(one)

    def remove(self, key: TryKey) -> Waiting | None:
        """Take out a try that waits; None if there is none."""
        one = self._waiting.pop(key, None)
        if one is not None:
            lane = self._lanes[one.spec]
            lane.gone += 1
            if lane.gone == len(lane.tries):
                del self._lanes[one.spec]
            elif lane.gone > max(_LONGEST_LOOK, len(lane.tries) // 2):
                lane.tries = deque(other for other in lane.tries if self._waiting.get(other.key) is other)
                lane.gone = 0
        return one

    def clear(self) -> list[Waiting]:
        """Take out all that waits."""
        found = list(self._waiting.values())
        self._waiting.clear()
        self._lanes.clear()
        return found

    def ahead(self, key: TryKey) -> int:
        """Return how many tries come before one that waits."""
        one = self._waiting.get(key)
        if one is None:
            return 0
        place = (-one.spec.priority, one.order)
        return sum((-other.spec.priority, other.order) < place for other in self._waiting.values())

    def next_batch(self) -> list[Waiting]:
        """Take out the tries that go next, all of one class; none if there is no room."""
        lanes = [(-lane.spec.priority, self._first(lane).order, lane) for lane in self._lanes.values()]
        for _, _, lane in sorted(lanes, key=lambda one: one[:2]):
            first = self._first(lane)
            size = self._size(first, len(lane.tries) - lane.gone)
            if self._room(lane.spec.resources, size > 1) > 0:
                return self._taken(lane, size)
        return []

    def sent(self, spec: TaskSpec) -> None:
        """A batch of that class went to the engine."""
        self._out[spec.resources] = self._out.get(spec.resources, 0) + 1

    def over(self, spec: TaskSpec) -> None:
        """The engine is done with a batch of that class."""
        left = self._out.get(spec.resources, 0) - 1
        if left > 0:
            self._out[spec.resources] = left
        else:
            self._out.pop(spec.resources, None)

    def took(self, function: str, seconds: float) -> None:
        """A task of a function took so long."""
        before = self._times.get(function)
        if before is None:
            if len(self._times) >= _MOST_FUNCTIONS:
                self._times.clear()
            self._times[function] = seconds
        elif seconds >= before:
            self._times[function] = seconds
        else:
            self._times[function] = before * _FADES + seconds * (1 - _FADES)

    # -- how

    def _lane(self, spec: TaskSpec) -> _Lane:
        lane = self._lanes.get(spec)
        if lane is None:
            lane = self._lanes[spec] = _Lane(spec)
        return lane

    def _first(self, lane: _Lane) -> Waiting:
        """Return the first try of a lane; those that were taken back fall out. There is one."""
        while self._waiting.get(lane.tries[0].key) is not lane.tries[0]:
            lane.tries.popleft()
            lane.gone -= 1
        return lane.tries[0]

    def _room(self, resources: Resources, short: bool) -> int:
        """Return how many batches the engine may be given now of tasks that need the same."""
        wide = max(1.0, resources.cores)
        slots = max(int(self.slots / wide), 1 if self.slots else 0)
        most = 2 * slots if short else slots
        return max(most, self.reserve) - self._out.get(resources, 0)

    def _size(self, first: Waiting, waiting: int) -> int:
        took_s = self._times.get(first.function) if first.files is None else None
        if took_s is None or self.slots < 1:
            return 1
        fitting = int(self.target_s / took_s) if took_s > 0 else self.most
        return max(1, min(self.most, fitting, -(-waiting // (2 * self.slots))))

    def _taken(self, lane: _Lane, size: int) -> list[Waiting]:
        taken: list[Waiting] = []
        kept: list[Waiting] = []
        looked, budget_s = 0, self.target_s
        while lane.tries and len(taken) < size and looked < size + _LONGEST_LOOK:
            one = lane.tries.popleft()
            looked += 1
            if self._waiting.get(one.key) is not one:
                lane.gone -= 1
                continue
            took_s = self._times.get(one.function)
            fits = one.files is None and took_s is not None and took_s <= budget_s
            if taken and not fits:
                kept.append(one)
                continue
            budget_s -= took_s or 0.0
            taken.append(one)
            del self._waiting[one.key]
        lane.tries.extendleft(reversed(kept))
        if lane.gone == len(lane.tries):
            del self._lanes[lane.spec]
        return taken
