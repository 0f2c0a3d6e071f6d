"""What the projection remembers of a run between batches: a few bytes a task, and the sums pages show."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass, field

FINAL = frozenset({"exec_done", "memo_done", "failed", "dep_fail", "cancelled"})
"""States that a task never leaves."""
KEPT_KEYS = 50_000
"""Keys of ended tries that are remembered."""


@dataclass(slots=True)
class AppSums:
    """Sums over the tries of one app. Times in nanoseconds, CPU in seconds, memory in kibibytes."""

    kind: str = ""
    tries: int = 0
    run_ns: int = 0
    run_max_ns: int = 0
    cpu_s: float = 0.0
    rss_kb: int = 0


class _Names:
    """Numbers for names, from 1; 0 stands for a name not known."""

    def __init__(self) -> None:
        self.names: list[str] = [""]
        self._numbers: dict[str, int] = {"": 0}

    def number(self, name: str) -> int:
        """Return the number of a name, a new one where it has none."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self.names)
            self.names.append(name)
        return found


@dataclass(slots=True)
class Tally:
    """App, state and depth of every task by its id; counts by app and state; edges between apps; keys of live tries."""

    app_names: _Names = field(default_factory=_Names)
    state_names: _Names = field(default_factory=_Names)
    _app: array[int] = field(default_factory=lambda: array("L"))
    _state: array[int] = field(default_factory=lambda: array("B"))
    _depth: array[int] = field(default_factory=lambda: array("L"))
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    edges: dict[tuple[str, str], int] = field(default_factory=dict)
    sums: dict[str, AppSums] = field(default_factory=dict)
    keys: dict[int, tuple[int, int]] = field(default_factory=dict)
    live: dict[tuple[int, int], int] = field(default_factory=dict)
    ended_keys: OrderedDict[int, tuple[int, int]] = field(default_factory=OrderedDict)
    lost: int = 0

    def app(self, task_id: int) -> str:
        """Return the app of a task, empty where not known."""
        return self.app_names.names[self._app[task_id]] if 0 <= task_id < len(self._app) else ""

    def state(self, task_id: int) -> str:
        """Return the state of a task, empty where not known."""
        return self.state_names.names[self._state[task_id]] if 0 <= task_id < len(self._state) else ""

    def depth(self, task_id: int) -> int:
        """Return the longest way from a task without parents; 0 where not known."""
        return self._depth[task_id] if 0 <= task_id < len(self._depth) else 0

    def put(self, task_id: int, app: str, state: str, depth: int) -> None:
        """Remember a task, without counting it."""
        if task_id >= len(self._app):
            room = max(task_id + 1 - len(self._app), min(len(self._app), 1 << 20), 1024)
            for column in (self._app, self._state, self._depth):
                column.frombytes(bytes(room * column.itemsize))
        self._app[task_id] = self.app_names.number(app)
        self._state[task_id] = self.state_names.number(state)
        self._depth[task_id] = depth

    def move(self, task_id: int, state: str) -> tuple[str, str]:
        """Move a task to a state and count it there; return its app and the state before, empty where not known."""
        if task_id >= len(self._state):
            self.put(task_id, "", "", 0)
        app = self.app_names.names[self._app[task_id]]
        before = self.state_names.names[self._state[task_id]]
        self._state[task_id] = self.state_names.number(state)
        counts = self.counts
        if before:
            counts[app, before] -= 1
        counts[app, state] = counts.get((app, state), 0) + 1
        return app, before

    def count(self, app: str, state: str, more: int) -> None:
        """Change the number of tasks of an app that are in a state."""
        if state:
            key = (app, state)
            self.counts[key] = self.counts.get(key, 0) + more

    def remember_key(self, key: int, task_id: int, try_id: int) -> None:
        """Remember whose a try's key is: its samples name nothing else."""
        self.keys[key] = (task_id, try_id)
        self.live[task_id, try_id] = key

    def forget_key(self, task_id: int, try_id: int) -> None:
        """Keep an ended try's key a while longer: its last sample may still come."""
        key = self.live.pop((task_id, try_id), None)
        if key is not None:
            self.ended_keys[key] = self.keys.pop(key)
            if len(self.ended_keys) > KEPT_KEYS:
                self.ended_keys.popitem(last=False)

    def owner(self, key: int) -> tuple[int, int] | None:
        """Return task and try of a key."""
        return self.keys.get(key) or self.ended_keys.get(key)

    def total(self, *states: str) -> int:
        """Return the number of tasks in the given states, of all where none is given."""
        return sum(n for (_app, state), n in self.counts.items() if not states or state in states)
