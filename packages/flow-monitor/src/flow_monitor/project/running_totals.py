"""Running totals of the projection of a run, kept between batches: a few bytes a task, and the sums pages show."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from flow_monitor.project.activity import Activity
from flow_monitor.project.usage import UseOverTime

FINAL = ("exec_done", "memo_done", "failed", "dep_fail", "cancelled")
"""States that a task never leaves; their numbers are 1 to 5."""
MOST_STATES = 32
"""States that can be counted: the graph has fewer. Fixed, so that counts are lists by number."""
KEPT_KEYS = 50_000
"""Keys of ended tries that are remembered, for samples that come after the end; it bounds the memory of long runs."""


@dataclass(slots=True)
class AppSums:
    """Sums over the tries of one app. Times in nanoseconds, CPU in seconds, memory in kibibytes."""

    kind: str = ""
    tries: int = 0
    run_ns: int = 0
    run_max_ns: int = 0
    cpu_s: float = 0.0
    rss_kb: int = 0

    def row(self, app: str) -> dict[str, object]:
        """Return the sums as a row of the table of apps."""
        return {
            "task_func_name": app,
            "task_kind": self.kind,
            "tries_ended": self.tries,
            "run_time_sum_ns": self.run_ns,
            "run_time_max_ns": self.run_max_ns,
            "cpu_sum_s": self.cpu_s,
            "max_rss_kb": self.rss_kb,
        }


class _Names:
    """Numbers for names, from 1; 0 stands for a name not known."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names: list[str] = ["", *names]
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, name: str) -> int:
        """Return the number of a name, a new one where it has none."""
        found = self.numbers.get(name)
        if found is None:
            found = self.numbers[name] = len(self.names)
            self.names.append(name)
        return found


@dataclass(slots=True)
class RunningTotals:
    """App, state and depth of every task by its id; counts by app and state; edges between apps; keys of live tries."""

    app_names: _Names = field(default_factory=_Names)
    state_names: _Names = field(default_factory=lambda: _Names(FINAL))
    # Arrays, not objects: a million tasks take some 17 MB, a dict of records would take hundreds.
    apps: array[int] = field(default_factory=lambda: array("L"))
    states: array[int] = field(default_factory=lambda: array("B"))
    depths: array[int] = field(default_factory=lambda: array("L"))
    counts: list[list[int]] = field(default_factory=lambda: [[0] * MOST_STATES])
    """Tasks by number of the app and number of the state."""
    edges: dict[tuple[str, str], int] = field(default_factory=dict)
    sums: dict[str, AppSums] = field(default_factory=dict)
    joins: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Tasks of an app that join tasks of another made, and that they wait for."""
    activity: Activity = field(default_factory=Activity)
    usage: UseOverTime = field(default_factory=UseOverTime)
    ran: dict[int, int] = field(default_factory=dict)
    """Run time (ns) of the ended tries, by task, for tasks that have not ended."""
    managers: dict[tuple[str, str], int] = field(default_factory=dict)
    """Tries that ended, by executor and manager; of managers that registered."""
    started: set[tuple[int, int]] = field(default_factory=set)
    """Live tries whose start is counted."""
    keys: dict[int, tuple[int, int]] = field(default_factory=dict)
    live: dict[tuple[int, int], int] = field(default_factory=dict)
    ended_keys: deque[int] = field(default_factory=deque)
    """Keys that are forgotten next, the oldest first."""
    lost: int = 0

    def app(self, task_id: int) -> str:
        """Return the app of a task, empty where not known."""
        return self.app_names.names[self.apps[task_id]] if 0 <= task_id < len(self.apps) else ""

    def state(self, task_id: int) -> str:
        """Return the state of a task, empty where not known."""
        return self.state_names.names[self.states[task_id]] if 0 <= task_id < len(self.states) else ""

    def depth(self, task_id: int) -> int:
        """Return the longest way from a task without parents; 0 where not known."""
        return self.depths[task_id] if 0 <= task_id < len(self.depths) else 0

    def put(self, task_id: int, app: str, state: str, depth: int) -> None:
        """Remember a task, without counting it."""
        if task_id >= len(self.apps):
            # Grown by doubling up to a million entries, so that the cost of a task does not grow with the run.
            room = max(task_id + 1 - len(self.apps), min(len(self.apps), 1 << 20), 1024)
            for column in (self.apps, self.states, self.depths):
                column.frombytes(bytes(room * column.itemsize))
        self.apps[task_id] = self.app_number(app)
        self.states[task_id] = self.state_names.number(state)
        self.depths[task_id] = depth

    def app_number(self, app: str) -> int:
        """Return the number of an app, with room for its counts."""
        number = self.app_names.number(app)
        # Numbers are given in turn, so one row is always enough.
        if number >= len(self.counts):
            self.counts.append([0] * MOST_STATES)
        return number

    def counted(self) -> dict[tuple[str, str], int]:
        """Return the number of tasks by app and state, where there are any."""
        apps, states = self.app_names.names, self.state_names.names
        return {
            (apps[app], states[state]): tasks
            for app, row in enumerate(self.counts)
            for state, tasks in enumerate(row)
            if tasks
        }

    def count(self, app: str, state: str, tasks: int) -> None:
        """Set the number of tasks of an app that are in a state."""
        self.counts[self.app_number(app)][self.state_names.number(state)] = tasks

    def remember_key(self, key: int, task_id: int, try_id: int) -> None:
        """Remember task and try of a key: samples carry the key alone."""
        self.keys[key] = (task_id, try_id)
        self.live[task_id, try_id] = key

    def forget_key(self, task_id: int, try_id: int) -> None:
        """Keep an ended try's key a while longer: its last sample may still come."""
        key = self.live.pop((task_id, try_id), None)
        if key is not None:
            self.ended_keys.append(key)
            if len(self.ended_keys) > KEPT_KEYS:
                self.keys.pop(self.ended_keys.popleft(), None)

    def owner(self, key: int) -> tuple[int, int] | None:
        """Return task and try of a key."""
        return self.keys.get(key)

    def total(self, *states: str) -> int:
        """Return the number of tasks in the given states, of all where none is given."""
        if not states:
            return sum(map(sum, self.counts))
        numbers = [self.state_names.number(state) for state in states]
        return sum(row[number] for row in self.counts for number in numbers)
