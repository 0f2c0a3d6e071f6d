"""The projection of events to rows: pure, no I/O, no clock. Feed it events in order; take the rows of a batch.

Rows are partial: what is not known is absent, and never erases what is in the database. Folding a batch twice gives the
same database, and a log with gaps still gives one that can be read. Tasks and tries, of which there are many, are lists
in the order of their columns; the rest are mappings by column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flow_core.interfaces.events import (
    BlockChanged,
    Event,
    EventsLost,
    FileMoving,
    FileStaged,
    NodeHeld,
    NodeJoined,
    NodeLeft,
    RunEnded,
    RunStarted,
    Sampled,
    TaskChanged,
    TaskEnded,
    TaskJoined,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Place, Usage
from flow_monitor.log.records import CODES, Row as LogRow, cost_of, event_of, reader_of, row_of
from flow_monitor.project.running_totals import FINAL, AppSums, RunningTotals
from flow_monitor.project.usage import GROUPINGS, Groups, Sums

Row = dict[str, object]
Key = tuple[object, ...]
Line = list[Any]
"""A row as a list, in the order of its columns."""

TASK_COLUMNS: Final = (
    "task_id", "task_func_name", "task_kind", "task_label", "task_status", "task_executor", "task_depends",
    "task_inputs", "task_outputs", "task_stdin", "task_stdout", "task_stderr", "task_hashsum", "task_memoize",
    "task_from_memo", "task_time_invoked", "task_time_running", "task_time_returned", "task_depth", "task_tries",
    "task_fail_count", "task_fail_cost", "task_parent", "task_error", "task_traceback", "task_run_time",
)  # fmt: skip
TRY_COLUMNS: Final = (
    "task_id", "try_id", "task_executor", "block_id", "hostname", "manager", "worker", "pid", "try_key",
    "task_try_time_launched", "task_try_time_running", "task_try_time_returned", "task_try_verdict",
    "task_fail_history", "cpu_user_s", "cpu_system_s", "max_rss_kb", "io_read_blocks", "io_write_blocks",
)  # fmt: skip
STATUS_COLUMNS: Final = ("task_id", "timestamp", "task_status_name", "try_id")
RESOURCE_COLUMNS: Final = (
    "task_id", "try_id", "timestamp", "executor", "block_id", "hostname", "manager", "psutil_process_pid",
    "psutil_process_count", "psutil_process_cpu_percent", "psutil_process_time_user", "psutil_process_time_system",
    "psutil_process_memory_resident", "psutil_process_memory_percent", "psutil_process_disk_read",
    "psutil_process_disk_write", "psutil_process_net_sent", "psutil_process_net_received",
)  # fmt: skip
# Tasks and tries are lists, which take less than mappings by column; their columns are found once, at import.
_STATUS = TASK_COLUMNS.index("task_status")
_RUNNING = TASK_COLUMNS.index("task_time_running")
_HASHSUM = TASK_COLUMNS.index("task_hashsum")
_FROM_MEMO = TASK_COLUMNS.index("task_from_memo")
_RETURNED = TASK_COLUMNS.index("task_time_returned")
_TRIES = TASK_COLUMNS.index("task_tries")
_ERROR = TASK_COLUMNS.index("task_error")
_RUN_TIME = TASK_COLUMNS.index("task_run_time")
_NO_TASK: Final[Line] = [None] * len(TASK_COLUMNS)
_NO_TRY: Final[Line] = [None] * len(TRY_COLUMNS)
_TRY_RUNNING = TRY_COLUMNS.index("task_try_time_running")
# Final states have the lowest numbers (1 to this), so "is it final?" is one comparison for each event.
_FINAL_STATES = len(FINAL)

# Fields of events are taken by name: a later flow-core may have more of them, and in another order.
_SUBMITTED: Final = reader_of(
    TaskSubmitted, "time_ns", "task_id", "app", "app_kind", "label", "executors", "depends", "inputs", "outputs",
    "stdout", "stderr", "cache", "parent", "items",
)  # fmt: skip
_CHANGED: Final = reader_of(TaskChanged, "time_ns", "task_id", "state")
_ENDED: Final = reader_of(
    TaskEnded, "time_ns", "task_id", "state", "hashsum", "memoized", "tries", "fail_count", "fail_cost", "error",
    "traceback",
)  # fmt: skip
_TRY_LAUNCHED: Final = reader_of(TryLaunched, "time_ns", "task_id", "try_id", "key", "executor")
_TRY_STARTED: Final = reader_of(TryStarted, "time_ns", "task_id", "try_id", "place")
_TRY_ENDED: Final = reader_of(
    TryEnded, "time_ns", "task_id", "try_id", "verdict", "started_ns", "ended_ns", "executor", "place", "usage", "error"
)
_PLACE: Final = reader_of(Place, "executor", "block", "node", "manager", "worker", "pid")
_USAGE: Final = reader_of(
    Usage, "cpu_user_s", "cpu_system_s", "max_rss_kb", "io_read_blocks", "io_write_blocks"
)  # fmt: skip

# Both spellings of the direction are taken; all others mean files that go out.
_DIRECTIONS_IN = frozenset({"in", "stage_in"})


@dataclass(slots=True)
class Rows:
    """Rows of one batch; those with a key are merged by it."""

    workflow: Row = field(default_factory=dict)
    tasks: dict[int, Line] = field(default_factory=dict)
    tries: dict[tuple[int, int], Line] = field(default_factory=dict)
    statuses: list[tuple[int, int, str, int | None]] = field(default_factory=list)
    resources: list[Line] = field(default_factory=list)
    keyed: dict[str, dict[Key, Row]] = field(default_factory=dict)
    activity_anew: bool = False
    usage_anew: list[str] = field(default_factory=list)
    """Groupings of which all sums are replaced."""

    def put(self, table: str, key: Key, row: Row) -> Row:
        """Merge a row into the batch; later values win."""
        rows = self.keyed.setdefault(table, {})
        found = rows.get(key)
        if found is None:
            rows[key] = row
            return row
        found.update(row)
        return found


class Projection:
    """Turns events of one run into rows. Used by one thread."""

    def __init__(self, run_id: str, tally: RunningTotals | None = None) -> None:
        self.run_id = run_id
        self.tally = RunningTotals() if tally is None else tally
        self.last_event_ns = 0
        self._numbers = self.tally.state_names.numbers
        self._running_number = self.tally.state_names.number("running")
        self._begin()
        self._named: dict[tuple[int, int | str], Groups] = {}
        self._apps: set[int] = set()
        self._edges: set[tuple[str, str]] = set()
        self._joins: set[tuple[str, str]] = set()
        self._sums: set[str] = set()
        self._managers: set[tuple[str, str]] = set()
        # A count that fell to 0 is written once more, else the database keeps the number of before; states that no task
        # of the app ever had get no row.
        self._seen_counts = {(self.tally.app_number(app), state) for app, state in self.tally.counted()}
        # Frequent events are folded as rows of the log, without an object for each; seldom ones are made into their
        # class, which is readable and costs nothing that counts.
        often: tuple[tuple[type, Callable[[LogRow], None]], ...] = (
            (TaskSubmitted, self._task_submitted),
            (TaskChanged, self._task_changed),
            (TaskEnded, self._task_ended),
            (TryLaunched, self._try_launched),
            (TryStarted, self._try_started),
            (TryEnded, self._try_ended),
        )
        seldom: tuple[tuple[type, Callable[[Any], None]], ...] = (
            (RunStarted, self._run_started),
            (RunEnded, self._run_ended),
            (BlockChanged, self._block_changed),
            (NodeJoined, self._node_joined),
            (NodeLeft, self._node_left),
            (NodeHeld, self._node_held),
            (Sampled, self._sampled),
            (FileStaged, self._file_staged),
            (FileMoving, self._file_moving),
            (TaskJoined, self._task_joined),
            (EventsLost, self._events_lost),
        )
        by_code: dict[int, Callable[[LogRow], None]] = {CODES[cls]: handler for cls, handler in often}
        for cls, handler in seldom:
            by_code[CODES[cls]] = lambda row, handler=handler: handler(event_of(row))  # type: ignore[misc] # bound early
        # A list by code, not a dict by class: one index for each event.
        self._handlers = [by_code.get(code, _pass_over) for code in CODES.values()]

    def fold(self, events: Sequence[Event]) -> None:
        """Fold event objects, in the order of the log."""
        self.fold_rows([row_of(event) for event in events])

    def fold_rows(self, rows: Sequence[LogRow]) -> None:
        """Take events as rows of the log, in order."""
        handlers = self._handlers
        self._named.clear()  # by identity of places, which live as long as their rows
        for row in rows:
            handlers[row[0]](row)
        if rows:
            self.last_event_ns = max(self.last_event_ns, rows[-1][1])

    def take(self) -> Rows:
        """Return the rows since the last call, with the sums that changed."""
        rows, tally = self._rows, self.tally
        # By task, as in the primary key: rows of one task go to the same page of the index.
        rows.statuses.sort(key=_task_of)
        self._take_counts(rows)
        for pair in self._edges:
            rows.put("app_edge", pair, {"from_app": pair[0], "to_app": pair[1], "edges": tally.edges[pair]})
        for above, below in self._joins:
            sums = tally.joins[above, below]
            row: Row = {"from_app": above, "to_app": below, "made": sums[0], "awaited": sums[1]}
            rows.put("app_join", (above, below), row)
        for app in self._sums:
            rows.put("app", (app,), tally.sums[app].row(app))
        for executor, manager in self._managers:
            tries = tally.managers[executor, manager]
            row = {"executor": executor, "manager": manager, "tries_ended": tries}
            rows.put("node", (executor, manager), row)
        rows.activity_anew, activity = tally.activity.take()
        for (app, begin), sums in activity.items():
            rows.put("app_activity", (app, begin), _activity_row(app, begin, tally.activity.width, sums))
        self._take_usage(rows)
        rows.workflow["events_lost_count"] = tally.lost
        if self.last_event_ns:
            rows.workflow["time_last_event"] = self.last_event_ns
        self._apps, self._edges, self._joins, self._sums, self._managers = set(), set(), set(), set(), set()
        self._begin()
        return rows

    def _take_usage(self, rows: Rows) -> None:
        # Pieces between samples are put into bins only here, once a batch.
        self.tally.usage.settle()
        for grouping, series in zip(GROUPINGS, self.tally.usage.series, strict=True):
            anew, changed = series.take()
            if anew:
                rows.usage_anew.append(grouping)
            for (name, begin), sums in changed.items():
                rows.put("usage_sums", (grouping, name, begin), _usage_row(grouping, name, begin, series.width, sums))

    def _take_counts(self, rows: Rows) -> None:
        tally = self.tally
        for number in self._apps:
            app = tally.app_names.names[number]
            for state, tasks in zip(tally.state_names.names, tally.counts[number], strict=False):
                if state and (tasks or (number, state) in self._seen_counts):
                    self._seen_counts.add((number, state))
                    rows.put("app_status", (app, state), {"task_func_name": app, "task_status": state, "tasks": tasks})
        if self._apps:
            rows.workflow.update(self._totals())

    def _begin(self) -> None:
        """Start a new, empty batch; the aliases save an attribute lookup for each event."""
        self._rows = Rows()
        self._tasks = self._rows.tasks
        self._tries = self._rows.tries
        self._statuses = self._rows.statuses

    # -- the run

    def _run_started(self, e: RunStarted) -> None:
        self._rows.workflow.update(
            workflow_name=e.name,
            flow_version=e.version,
            python_version=e.python,
            host=e.host,
            user=e.user,
            rundir=e.run_dir,
            script=e.script,
            executors=json.dumps(e.executors),
            epoch=e.epoch,
            time_began=e.time_ns,
        )

    def _run_ended(self, e: RunEnded) -> None:
        self._rows.workflow.update(time_completed=e.time_ns, ended_how="ended")

    def _events_lost(self, e: EventsLost) -> None:
        # The number lost is part of the run's own row, so that a list of runs can warn without reading the gaps.
        self.tally.lost += e.count
        self._rows.put("gap", (e.time_ns, e.reason), {
            "timestamp": e.time_ns, "reason": e.reason, "events": e.count, "time_first": e.since_ns or None,
        })  # fmt: skip

    def _totals(self) -> Row:
        total = self.tally.total
        return {
            "tasks_submitted_count": total(),
            "tasks_completed_count": total("exec_done", "memo_done"),
            "tasks_failed_count": total("failed", "dep_fail"),
            "tasks_memoized_count": total("memo_done"),
            "tasks_cancelled_count": total("cancelled"),
        }

    # -- tasks

    def _task(self, task_id: int) -> Line:
        """Return the row of a task in this batch."""
        row = self._tasks.get(task_id)
        if row is None:
            row = self._tasks[task_id] = _NO_TASK.copy()
            row[0] = task_id
        return row

    def _enter(self, task_id: int, state: str, time_ns: int, try_id: int | None = None) -> bool:
        """Move a task to a state; return whether it moved. A final state is only left for another final one."""
        tally = self.tally
        states, number = tally.states, self._numbers.get(state) or tally.state_names.number(state)
        # The submission is in a gap: the task is counted under the empty name until it is known.
        if task_id >= len(states):
            tally.put(task_id, "", "", 0)
        before = states[task_id]
        # A late event, as of a try that started just before its task was cancelled, must not revive a task that has
        # ended. The same state again counts only as that of another try.
        if (0 < before <= _FINAL_STATES < number) or (before == number and try_id is None):
            return False
        app = tally.apps[task_id]
        states[task_id] = number
        counts = tally.counts[app]
        # The first state of a task takes it from no other.
        if before:
            counts[before] -= 1
        counts[number] += 1
        self._apps.add(app)
        (self._tasks.get(task_id) or self._task(task_id))[_STATUS] = state
        self._statuses.append((task_id, time_ns, state, try_id))
        return True

    def _task_submitted(self, row: LogRow) -> None:
        (
            time_ns, task_id, app, kind, label, executors, depends, inputs, outputs, stdout, stderr, cache, parent,
            items,
        ) = _SUBMITTED(row)  # fmt: skip
        tally = self.tally
        depth = 1 + max(map(tally.depth, depends)) if depends else 0
        if parent is not None:  # made by a join task: it comes after its maker
            depth = max(depth, 1 + tally.depth(parent))
            self._join(parent, app, 0)
        before = tally.state(task_id)
        if before:  # events of it came first: they were counted under no name
            self._rename(task_id, app)
        tally.put(task_id, app, before, depth)
        old = self._tasks.get(task_id)
        self._tasks[task_id] = line = [
            task_id, app, kind, label or None, before or None, ",".join(executors),
            ",".join(map(str, depends)) if depends else "",
            json.dumps(items or inputs) if items or inputs else None, json.dumps(outputs) if outputs else None,
            None, stdout or None, stderr or None, None, int(cache), None, time_ns, None, None,
            depth, None, None, None, parent, None, None, None,
        ]  # fmt: skip
        # Events that came before the submission have filled other columns: these stay.
        if old is not None:
            for at, value in enumerate(old):
                if line[at] is None:
                    line[at] = value
        # A task that has a state already has moved on; "pending" would take it back.
        if not before:
            self._enter(task_id, "pending", time_ns)
        if app not in tally.sums:
            tally.sums[app] = AppSums()
        tally.sums[app].kind = kind
        self._sums.add(app)
        for above in depends:
            self._edge(tally.app(above), app)
        for url in inputs:
            self._file("input_file", task_id, url)
        for url in outputs:
            self._file("output_file", task_id, url)

    def _rename(self, task_id: int, app: str) -> None:
        """Count a task under the name of its app, not under none."""
        tally = self.tally
        state, old, new = tally.states[task_id], tally.apps[task_id], tally.app_number(app)
        tally.counts[old][state] -= 1
        tally.counts[new][state] += 1
        self._apps.update((old, new))

    def _edge(self, parent: str, child: str) -> None:
        pair = (parent, child)
        self.tally.edges[pair] = self.tally.edges.get(pair, 0) + 1
        self._edges.add(pair)

    def _task_joined(self, e: TaskJoined) -> None:
        # "joined" has a foreign key to the task, whose submission may be in a gap.
        if not self.tally.state(e.task_id):
            self._task(e.task_id)
        self._rows.put("joined", (e.task_id,), {"task_id": e.task_id, "waits_for": ",".join(map(str, e.waits_for))})
        for task_id in e.waits_for:
            self._join(e.task_id, self.tally.app(task_id), 1)

    def _join(self, task_id: int, below: str, which: int) -> None:
        """Count a task that a join task made (0) or waits for (1)."""
        pair = (self.tally.app(task_id), below)
        self.tally.joins.setdefault(pair, [0, 0])[which] += 1
        self._joins.add(pair)

    def _task_changed(self, row: LogRow) -> None:
        time_ns, task_id, state = _CHANGED(row)
        self._enter(task_id, state.lower(), time_ns)

    def _task_ended(self, row: LogRow) -> None:
        time_ns, task_id, state, hashsum, memoized, tries, fail_count, fail_cost, error, traceback = _ENDED(row)
        self._enter(task_id, state.lower(), time_ns)
        line = self._tasks.get(task_id) or self._task(task_id)
        line[_HASHSUM] = hashsum or None
        line[_FROM_MEMO] = int(memoized)
        line[_RETURNED] = time_ns
        line[_TRIES : _TRIES + 3] = tries, fail_count, cost_of(fail_cost)
        line[_ERROR] = error or None
        line[_ERROR + 1] = traceback or None
        # The sum of run times is needed only while further tries may add to it.
        self.tally.ran.pop(task_id, None)

    # -- tries

    def _try(self, task_id: int, try_id: int) -> Line:
        """Return the row of a try in this batch."""
        line = self._tries.get((task_id, try_id))
        if line is None:
            line = self._tries[task_id, try_id] = _NO_TRY.copy()
            line[0], line[1] = task_id, try_id
            if not self.tally.state(task_id):
                self._task(task_id)  # a row for the foreign key, where its submission is in a gap
        return line

    def _try_launched(self, row: LogRow) -> None:
        time_ns, task_id, try_id, key, executor = _TRY_LAUNCHED(row)
        # Samples name a try by its key alone, since workers know no task ids.
        self.tally.remember_key(key, task_id, try_id)
        line = self._try(task_id, try_id)
        line[2] = executor
        # Keys are unsigned 64-bit numbers, columns of databases signed ones: the bits are kept, the sign is not.
        line[8:10] = key if key < 1 << 63 else key - (1 << 64), time_ns
        self._enter(task_id, "launched", time_ns, try_id)

    def _try_started(self, row: LogRow) -> None:
        time_ns, task_id, try_id, place = _TRY_STARTED(row)
        line = self._try(task_id, try_id)
        line[2:8] = _PLACE(place)
        line[_TRY_RUNNING] = time_ns
        self._running(task_id, try_id, time_ns)
        # Activity counts each start once, also where its event is folded again.
        if (task_id, try_id) not in self.tally.started:
            self.tally.started.add((task_id, try_id))
            self.tally.activity.began(self.tally.app(task_id), time_ns)
        self.tally.usage.started((task_id, try_id), time_ns, self._groups(task_id, place, ""))

    def _running(self, task_id: int, try_id: int, time_ns: int) -> None:
        states = self.tally.states
        # The end of a try repeats its start: most tasks are "running" already.
        if task_id < len(states) and states[task_id] == self._running_number:
            return
        if self._enter(task_id, "running", time_ns, try_id):
            # The first try that started is the one that counts for the task.
            line = self._tasks[task_id]
            if line[_RUNNING] is None:
                line[_RUNNING] = time_ns

    def _try_ended(self, row: LogRow) -> None:
        time_ns, task_id, try_id, verdict, started_ns, ended_ns, executor, place, usage, error = _TRY_ENDED(row)
        # A try that was lost has no end of its own: the time of the event is the best that is known.
        ended_ns = ended_ns or time_ns
        line = self._tries.get((task_id, try_id)) or self._try(task_id, try_id)
        if place is None:
            line[2] = executor
        else:
            line[2:8] = _PLACE(place)
            # Only managers that have registered are counted: threads and pools have no row of a node.
            manager = (line[2], line[5])
            if manager in self.tally.managers:
                self.tally.managers[manager] += 1
                self._managers.add(manager)
        if started_ns:
            line[_TRY_RUNNING] = started_ns
            self._running(task_id, try_id, started_ns)
        line[11:14] = ended_ns, verdict, error or None
        if usage is not None:
            line[14:19] = usage = _USAGE(usage)
        self._sum(task_id, try_id, started_ns, ended_ns, usage, self._groups(task_id, place, executor))
        self.tally.forget_key(task_id, try_id)

    def _groups(self, task_id: int, place: Sequence[Any] | None, executor: str) -> Groups:
        """Return the names under which the use of a task is summed: of its app, its node and its block."""
        apps = self.tally.apps
        # By identity of the place: the rows of one frame share it, and hashing its fields costs more than making some
        # names twice.
        key = (apps[task_id] if task_id < len(apps) else 0, executor if place is None else id(place))
        found = self._named.get(key)
        if found is None:
            node, block = "", f"{executor}/"
            if place is not None:
                label, block, node, *_ = _PLACE(place)
                node, block = node or "", f"{label}/{block or ''}"
            found = self._named[key] = (self.tally.app(task_id), node, block)
        return found

    def _sum(
        self, task_id: int, try_id: int, started_ns: int, ended_ns: int, usage: Sequence[Any] | None, groups: Groups
    ) -> None:
        """Add a try that has ended to the sums of its app, to the run time of its task and to the use over time."""
        tally, app, key = self.tally, groups[0], (task_id, try_id)
        sums = tally.sums.get(app)
        if sums is None:
            sums = tally.sums[app] = AppSums()
        self._sums.add(app)
        sums.tries += 1
        counted = key in tally.started
        # Clocks of two machines may differ: a negative run time would make means wrong, so such a try adds none.
        if started_ns and ended_ns >= started_ns:
            took = ended_ns - started_ns
            sums.run_ns += took
            if took > sums.run_max_ns:
                sums.run_max_ns = took
            if counted:
                tally.activity.ended(app, ended_ns)
            else:
                tally.activity.ran(app, started_ns, ended_ns)
            self._ran(task_id, took)
        elif counted:
            tally.activity.ended(app, ended_ns)
        if counted:
            tally.started.discard(key)
        cpu_s, most = None, 0
        if usage is not None:
            cpu_s, kb = usage[0] + usage[1], usage[2]
            # Exact, from the operating system at the end of the try; samples only say when it was used.
            sums.cpu_s += cpu_s
            if kb > sums.rss_kb:
                sums.rss_kb = kb
            most = kb * 1024
        tally.usage.ended(key, started_ns, ended_ns, groups, cpu_s, most)

    def _ran(self, task_id: int, took_ns: int) -> None:
        """Add what a try took to the run time of its task."""
        tally = self.tally
        total = tally.ran.get(task_id, 0) + took_ns
        (self._tasks.get(task_id) or self._task(task_id))[_RUN_TIME] = total
        # Else the try's end came after the task's: nothing will add to it or remove it.
        if not 0 < tally.states[task_id] <= _FINAL_STATES:  # a try that began has a state
            tally.ran[task_id] = total

    # -- blocks, nodes, samples, files

    def _block_changed(self, e: BlockChanged) -> None:
        key = (e.executor, e.block)
        row: Row = {"executor_label": e.executor, "block_id": e.block, "status": e.state, "time_changed": e.time_ns}
        # Later events of a block may not know the job id: an empty one must not replace it.
        if e.job_id:
            row["job_id"] = e.job_id
        # setdefault: the first change of a block is its request; within a batch the first time stays, as in the
        # database.
        self._rows.put("block", key, {**row, "reason": e.reason}).setdefault("time_requested", e.time_ns)
        self._rows.put("block_status", (*key, e.time_ns, e.state), {
            "executor_label": e.executor, "block_id": e.block, "timestamp": e.time_ns, "status": e.state,
            "job_id": e.job_id, "reason": e.reason,
        })  # fmt: skip

    def _node_joined(self, e: NodeJoined) -> None:
        self.tally.managers.setdefault((e.executor, e.manager), 0)
        self._rows.put("node", (e.executor, e.manager), {
            "executor": e.executor, "manager": e.manager, "block_id": e.block, "hostname": e.node,
            "python_version": e.python, "pid": e.pid, "worker_count": e.workers, "cpu_count": e.cpu_count,
            "total_memory": e.memory_bytes, "time_joined": e.time_ns,
        })  # fmt: skip

    def _node_left(self, e: NodeLeft) -> None:
        self._rows.put("node", (e.executor, e.manager), {
            "executor": e.executor, "manager": e.manager, "block_id": e.block, "time_left": e.time_ns,
            "lost": int(e.lost), "reason": e.reason,
        })  # fmt: skip

    def _node_held(self, e: NodeHeld) -> None:
        row = self._rows.put("node_hold", (e.executor, e.node), {"executor": e.executor, "hostname": e.node})
        if e.reason:
            row.update(reason=e.reason, time_held=e.time_ns, time_freed=None)
        else:
            row.update(time_freed=e.time_ns)

    def _sampled(self, e: Sampled) -> None:
        for s in e.samples:
            owner = None if s.key is None else self.tally.owner(s.key)
            if s.key is not None and owner is None:
                continue  # a try whose launch is in a gap: the task is not known
            task_id, try_id = owner or (None, None)
            if owner is not None and owner in self.tally.live:  # of others the sum at the end is known
                self.tally.usage.sampled(
                    owner, s.time_ns, (self.tally.app(owner[0]), e.node, f"{e.executor}/{e.block}"),
                    s.cpu_user_s + s.cpu_system_s, s.memory_rss, s.processes,
                )  # fmt: skip
            self._rows.resources.append([
                task_id, try_id, s.time_ns, e.executor, e.block, e.node, e.manager, s.pid, s.processes, s.cpu_percent,
                s.cpu_user_s, s.cpu_system_s, s.memory_rss, s.memory_percent, s.disk_read, s.disk_write, s.net_sent,
                s.net_received,
            ])  # fmt: skip

    def _file(self, table: str, task_id: int, url: str) -> Row:
        self._rows.put("file", (url,), {"url": url})
        return self._rows.put(table, (task_id, url), {"task_id": task_id, "url": url})

    def _file_staged(self, e: FileStaged) -> None:
        table = "input_file" if e.direction.lower() in _DIRECTIONS_IN else "output_file"
        self._file(table, e.task_id, e.url).update(
            local_path=e.local_path, error=e.error or None, time_staged=e.time_ns
        )
        row = self._rows.put("file", (e.url,), {"url": e.url})
        # A size below 0 means "not known".
        if e.size >= 0:
            row["size"] = e.size
        if e.digest:
            row["digest"] = e.digest
        # A row for the foreign key, where the task's submission is in a gap.
        if not self.tally.state(e.task_id):
            self._task(e.task_id)

    def _file_moving(self, e: FileMoving) -> None:
        self._rows.put(
            "file_progress",
            (e.task_id, e.url, e.direction),
            {"task_id": e.task_id, "url": e.url, "direction": e.direction},
        ).update(timestamp=e.time_ns, moved=e.moved, total=e.total if e.total >= 0 else None, speed=e.speed)


def _activity_row(app: str, begin: int, width: int, sums: Sequence[int]) -> Row:
    return {
        "task_func_name": app,
        "bin_begin": begin,
        "bin_width": width,
        "started": sums[0],
        "ended": sums[1],
        "start_offsets": sums[2],
        "end_offsets": sums[3],
    }


def _usage_row(grouping: str, name: str, begin: int, width: int, sums: Sums) -> Row:
    return {
        "grouping": grouping, "name": name, "bin_begin": begin, "bin_width": width,
        "cores": sums[0], "memory": sums[1], "processes": sums[2],
        "cores_offset": sums[3], "memory_offset": sums[4], "processes_offset": sums[5],
    }  # fmt: skip


def _pass_over(row: LogRow) -> None:
    """Take an event of a kind that only a later flow-core has: nothing in the database is made of it."""


def _task_of(status: tuple[int, int, str, int | None]) -> int:
    return status[0]
