"""Folds events into rows: pure, no I/O, no clock. Feed it events in order; take the rows of a batch.

Rows are partial: what is not known is absent, and never erases what is in the database. Folding a batch twice gives the
same database, and a log with gaps still gives one that can be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from flow_core.interfaces.events import (
    BlockChanged,
    Event,
    EventsLost,
    FileStaged,
    NodeJoined,
    NodeLeft,
    RunEnded,
    RunStarted,
    Sampled,
    TaskChanged,
    TaskEnded,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Place
from flow_monitor.project.tally import FINAL, AppSums, Tally

Row = dict[str, object]
Key = tuple[object, ...]

_DIRECTIONS_IN = frozenset({"in", "stage_in"})


@dataclass(slots=True)
class Rows:
    """Rows of one batch by table, merged by primary key; ``resource`` has none."""

    workflow: Row = field(default_factory=dict)
    keyed: dict[str, dict[Key, Row]] = field(default_factory=dict)
    resource: list[Row] = field(default_factory=list)

    def put(self, table: str, key: Key, row: Row) -> Row:
        """Merge a row into the batch; later values win."""
        rows = self.keyed.setdefault(table, {})
        found = rows.get(key)
        if found is None:
            rows[key] = row
            return row
        found.update(row)
        return found


class Fold:
    """Turns events of one run into rows. Used by one thread."""

    def __init__(self, run_id: str, tally: Tally | None = None) -> None:
        self.run_id = run_id
        self.tally = Tally() if tally is None else tally
        self.last_event_ns = 0
        self._begin()
        self._counts: set[tuple[str, str]] = set()
        self._edges: set[tuple[str, str]] = set()
        self._sums: set[str] = set()
        self._handlers: dict[type, Callable[[object], None]] = {
            cls: cast("Callable[[object], None]", handler)
            for cls, handler in (
                (RunStarted, self._run_started),
                (RunEnded, self._run_ended),
                (TaskSubmitted, self._task_submitted),
                (TaskChanged, self._task_changed),
                (TaskEnded, self._task_ended),
                (TryLaunched, self._try_launched),
                (TryStarted, self._try_started),
                (TryEnded, self._try_ended),
                (BlockChanged, self._block_changed),
                (NodeJoined, self._node_joined),
                (NodeLeft, self._node_left),
                (Sampled, self._sampled),
                (FileStaged, self._file_staged),
                (EventsLost, self._events_lost),
            )
        }

    def fold(self, events: Sequence[Event]) -> None:
        """Take events, in order."""
        handlers = self._handlers
        for event in events:
            handlers[type(event)](event)
        if events:
            self.last_event_ns = max(self.last_event_ns, events[-1].time_ns)

    def take(self) -> Rows:
        """Return the rows since the last call, with the sums that changed."""
        rows, tally = self._rows, self.tally
        rows.keyed["task"] = {(task_id,): row for task_id, row in self._tasks.items()}
        rows.keyed["status"] = self._statuses
        for app, state in self._counts:
            rows.put(
                "app_status",
                (app, state),
                {"task_func_name": app, "task_status": state, "tasks": tally.counts[app, state]},
            )
        for pair in self._edges:
            rows.put("app_edge", pair, {"from_app": pair[0], "to_app": pair[1], "edges": tally.edges[pair]})
        for app in self._sums:
            rows.put("app", (app,), _sums_row(app, tally.sums[app]))
        if self._counts:
            rows.workflow.update(self._totals())
        rows.workflow["events_lost_count"] = tally.lost
        if self.last_event_ns:
            rows.workflow["time_last_event"] = self.last_event_ns
        self._counts, self._edges, self._sums = set(), set(), set()
        self._begin()
        return rows

    def _begin(self) -> None:
        """Begin a batch."""
        self._rows = Rows()
        self._tasks: dict[int, Row] = {}
        self._statuses: dict[Key, Row] = {}

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
        self.tally.lost += e.count
        self._rows.put("gap", (e.time_ns, e.reason), {"timestamp": e.time_ns, "reason": e.reason, "events": e.count})

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

    def _task(self, task_id: int) -> Row:
        """Return the row of a task in this batch."""
        row = self._tasks.get(task_id)
        if row is None:
            row = self._tasks[task_id] = {"task_id": task_id}
        return row

    def _enter(self, task_id: int, state: str, time_ns: int, try_id: int | None = None) -> bool:
        """Move a task to a state; return whether it moved. A final state is only left for another final one."""
        before = self.tally.state(task_id)
        if (before in FINAL and state not in FINAL) or (before == state and try_id is None):
            return False
        app, before = self.tally.move(task_id, state)
        self._counts.add((app, state))
        if before:
            self._counts.add((app, before))
        self._task(task_id)["task_status"] = state
        self._statuses[task_id, time_ns, state] = {
            "task_id": task_id,
            "timestamp": time_ns,
            "task_status_name": state,
            "try_id": try_id,
        }
        return True

    def _task_submitted(self, e: TaskSubmitted) -> None:
        tally, task_id = self.tally, e.task_id
        depth = 1 + max((tally.depth(parent) for parent in e.depends), default=-1)
        if before := tally.state(task_id):  # events of it came first: they were counted under no name
            tally.count(tally.app(task_id), before, -1)
            tally.count(e.app, before, 1)
            self._counts.update(((tally.app(task_id), before), (e.app, before)))
        tally.put(task_id, e.app, before, depth)
        self._task(task_id).update({
            "task_func_name": e.app,
            "task_kind": e.app_kind,
            "task_label": e.label or None,
            "task_executor": ",".join(e.executors),
            "task_depends": ",".join(map(str, e.depends)),
            "task_inputs": json.dumps(e.inputs) if e.inputs else None,
            "task_outputs": json.dumps(e.outputs) if e.outputs else None,
            "task_stdout": e.stdout or None,
            "task_stderr": e.stderr or None,
            "task_memoize": int(e.cache),
            "task_time_invoked": e.time_ns,
            "task_depth": depth,
            "task_parent": e.parent,
        })  # fmt: skip
        if not before:
            self._enter(task_id, "pending", e.time_ns)
        sums = tally.sums.setdefault(e.app, AppSums())
        sums.kind = e.app_kind
        self._sums.add(e.app)
        for parent in e.depends:
            self._edge(tally.app(parent), e.app)
        for table, urls in (("input_file", e.inputs), ("output_file", e.outputs)):
            for url in urls:
                self._file(table, task_id, url)

    def _edge(self, parent: str, child: str) -> None:
        pair = (parent, child)
        self.tally.edges[pair] = self.tally.edges.get(pair, 0) + 1
        self._edges.add(pair)

    def _task_changed(self, e: TaskChanged) -> None:
        self._enter(e.task_id, e.state.lower(), e.time_ns)

    def _task_ended(self, e: TaskEnded) -> None:
        self._enter(e.task_id, e.state.lower(), e.time_ns)
        self._task(e.task_id).update({
            "task_hashsum": e.hashsum or None,
            "task_from_memo": int(e.memoized),
            "task_tries": e.tries,
            "task_fail_count": e.fail_count,
            "task_fail_cost": e.fail_cost,
            "task_error": e.error or None,
            "task_traceback": e.traceback or None,
            "task_time_returned": e.time_ns,
        })  # fmt: skip

    # -- tries

    def _try(self, task_id: int, try_id: int, row: Row, place: Place | None = None) -> None:
        row["task_id"], row["try_id"] = task_id, try_id
        if place is not None:
            row.update(
                task_executor=place.executor,
                block_id=place.block,
                hostname=place.node,
                manager=place.manager,
                worker=place.worker,
                pid=place.pid,
            )
        self._rows.put("try", (task_id, try_id), row)
        if not self.tally.state(task_id):
            self._task(task_id)  # a row for the foreign key, where its submission is in a gap

    def _try_launched(self, e: TryLaunched) -> None:
        self.tally.remember_key(e.key, e.task_id, e.try_id)
        key = e.key if e.key < 1 << 63 else e.key - (1 << 64)
        self._try(e.task_id, e.try_id, {
            "task_executor": e.executor, "task_try_time_launched": e.time_ns, "try_key": key,
        })  # fmt: skip
        self._enter(e.task_id, "launched", e.time_ns, e.try_id)

    def _try_started(self, e: TryStarted) -> None:
        self._try(e.task_id, e.try_id, {"task_try_time_running": e.time_ns}, e.place)
        self._running(e.task_id, e.try_id, e.time_ns)

    def _running(self, task_id: int, try_id: int, time_ns: int) -> None:
        if self.tally.state(task_id) != "running" and self._enter(task_id, "running", time_ns, try_id):
            self._task(task_id).setdefault("task_time_running", time_ns)

    def _try_ended(self, e: TryEnded) -> None:
        row: Row = {
            "task_executor": e.executor,
            "task_try_time_returned": e.ended_ns or e.time_ns,
            "task_try_verdict": e.verdict,
            "task_fail_history": e.error or None,
        }
        if e.started_ns:
            row["task_try_time_running"] = e.started_ns
            self._running(e.task_id, e.try_id, e.started_ns)
        if e.usage is not None:
            row.update(
                cpu_user_s=e.usage.cpu_user_s,
                cpu_system_s=e.usage.cpu_system_s,
                max_rss_kb=e.usage.max_rss_kb,
                io_read_blocks=e.usage.io_read_blocks,
                io_write_blocks=e.usage.io_write_blocks,
            )
        self._try(e.task_id, e.try_id, row, e.place)
        self._sum(e)
        self.tally.forget_key(e.task_id, e.try_id)

    def _sum(self, e: TryEnded) -> None:
        app = self.tally.app(e.task_id)
        sums = self.tally.sums.setdefault(app, AppSums())
        sums.tries += 1
        if e.started_ns and e.ended_ns >= e.started_ns:
            sums.run_ns += e.ended_ns - e.started_ns
            sums.run_max_ns = max(sums.run_max_ns, e.ended_ns - e.started_ns)
        if e.usage is not None:
            sums.cpu_s += e.usage.cpu_user_s + e.usage.cpu_system_s
            sums.rss_kb = max(sums.rss_kb, e.usage.max_rss_kb)
        self._sums.add(app)

    # -- blocks, nodes, samples, files

    def _block_changed(self, e: BlockChanged) -> None:
        key = (e.executor, e.block)
        row: Row = {"executor_label": e.executor, "block_id": e.block, "status": e.state, "time_changed": e.time_ns}
        if e.job_id:
            row["job_id"] = e.job_id
        self._rows.put("block", key, {**row, "reason": e.reason}).setdefault("time_requested", e.time_ns)
        self._rows.put("block_status", (*key, e.time_ns, e.state), {
            "executor_label": e.executor, "block_id": e.block, "timestamp": e.time_ns, "status": e.state,
            "job_id": e.job_id, "reason": e.reason,
        })  # fmt: skip

    def _node_joined(self, e: NodeJoined) -> None:
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

    def _sampled(self, e: Sampled) -> None:
        for s in e.samples:
            owner = None if s.key is None else self.tally.owner(s.key)
            if s.key is not None and owner is None:
                continue  # a try whose launch is in a gap: nobody to show it with
            self._rows.resource.append({
                "task_id": owner and owner[0], "try_id": owner and owner[1], "timestamp": s.time_ns,
                "executor": e.executor, "block_id": e.block, "hostname": e.node, "manager": e.manager,
                "psutil_process_pid": s.pid, "psutil_process_count": s.processes,
                "psutil_process_cpu_percent": s.cpu_percent,
                "psutil_process_time_user": s.cpu_user_s, "psutil_process_time_system": s.cpu_system_s,
                "psutil_process_memory_resident": s.memory_rss, "psutil_process_memory_percent": s.memory_percent,
                "psutil_process_disk_read": s.disk_read, "psutil_process_disk_write": s.disk_write,
                "psutil_process_net_sent": s.net_sent, "psutil_process_net_received": s.net_received,
            })  # fmt: skip

    def _file(self, table: str, task_id: int, url: str) -> Row:
        self._rows.put("file", (url,), {"url": url})
        return self._rows.put(table, (task_id, url), {"task_id": task_id, "url": url})

    def _file_staged(self, e: FileStaged) -> None:
        table = "input_file" if e.direction.lower() in _DIRECTIONS_IN else "output_file"
        self._file(table, e.task_id, e.url).update(
            local_path=e.local_path, error=e.error or None, time_staged=e.time_ns
        )
        row = self._rows.put("file", (e.url,), {"url": e.url})
        if e.size >= 0:
            row["size"] = e.size
        if e.digest:
            row["digest"] = e.digest
        if not self.tally.state(e.task_id):
            self._task(e.task_id)


def _sums_row(app: str, sums: AppSums) -> Row:
    return {
        "task_func_name": app,
        "task_kind": sums.kind,
        "tries_ended": sums.tries,
        "run_time_sum_ns": sums.run_ns,
        "run_time_max_ns": sums.run_max_ns,
        "cpu_sum_s": sums.cpu_s,
        "max_rss_kb": sums.rss_kb,
    }
