"""Tasks of a run: lists of them, and one with all that is known of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flow.runs.find import Run, run_at
from flow.runs.status import ENDED, status_of
from flow_core.errors import FlowError, RunNotLive
from flow_core.kernel.live import ask


class NothingRecorded(FlowError):
    """What was asked for is not known of a run, which has no monitoring; the message says what is."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list. Times in int64 nanoseconds UTC, None where not known.

    Attributes:
        task: Its id.
        app: Name of its app.
        state: Its state.
        executor: Label of the executor of its last try.
        tries: Tries made.
        began_ns: When its last try was handed over, or began to run.
        run_time_s: Seconds that its ended tries ran; None where not known.
        error: Its exception, in a line; empty where it has none.
    """

    task: int
    app: str
    state: str
    executor: str
    tries: int
    began_ns: int | None
    run_time_s: float | None
    error: str


@dataclass(frozen=True, slots=True)
class TaskList:
    """Some tasks of a run.

    Attributes:
        tasks: They, by their ids.
        total: How many there are of the kind.
        unfinished_only: Whether ended tasks are not known, since the run has no monitoring.
    """

    tasks: tuple[TaskRow, ...]
    total: int
    unfinished_only: bool = False


def list_tasks(
    run: Run, database: str | None, app: str = "", states: tuple[str, ...] = (), offset: int = 0, limit: int = 100
) -> TaskList:
    """Return tasks of a run: from its database, or without one the unfinished ones from its script.

    Raises:
        MonitorError: the database cannot be read.
        NothingRecorded: the run has no monitoring, and has ended.
        RunNotLive: its script does not answer.
    """
    if not run.has_database(database):
        return _from_script(run, app, states, offset, limit)
    from flow.runs.database import recorded
    from flow_monitor.queries import tasks
    from flow_monitor.queries.listing import TaskFilter

    with recorded(run, database) as found:
        page = tasks.page(
            found.connection, found.run_id, TaskFilter(app=app, states=states), offset=offset, limit=limit
        )
    rows = tuple(
        TaskRow(
            one.task_id,
            one.app,
            one.status,
            one.executor,
            one.tries,
            one.time_running or one.time_invoked,
            None if one.run_time_ns is None else one.run_time_ns / 1e9,
            one.error,
        )
        for one in page.items
    )
    return TaskList(rows, page.total)


def describe_task(run: Run, database: str | None, task: int) -> dict[str, Any]:
    """Return all that is known of a task, as JSON has it; with ``why`` where it is not done.

    Raises:
        LookupError: there is no such task, or it has ended and the run has no monitoring.
        MonitorError, RunNotLive: as ``list_tasks``.
    """
    asked: dict[str, Any] = {}
    refused: LookupError | None = None
    silent: RunNotLive | None = None
    if run.live:
        try:
            asked = ask(run.path, "task", task=task)
        except LookupError as error:
            refused = error
        except RunNotLive as error:
            run = run_at(run.path)
            silent = error if run.live else None
    if not run.has_database(database):
        if silent is not None:
            raise silent
        return asked or _from_failures(run, task, refused)
    from flow.runs.database import recorded
    from flow_monitor.errors import MonitorError
    from flow_monitor.queries import tasks

    try:
        with recorded(run, database) as found:
            detail = asdict(tasks.one(found.connection, found.run_id, task))
    except MonitorError:
        if asked:  # it has only just been called: the database does not have it yet
            return asked
        raise
    row = detail.pop("task")
    if silent is not None and row["status"] not in ENDED:
        asked = {"why": f"why it is not done is not known: {silent}"}
    return {**row, **detail, **asked, "task": task, "app": row["app"], "state": asked.get("state", row["status"])}


def _from_script(run: Run, app: str, states: tuple[str, ...], offset: int, limit: int) -> TaskList:
    if not run.live:
        raise NothingRecorded(
            f"which tasks run {run.path} had is not recorded, and its script has ended: with "
            "Config(monitoring=MonitoringHub()) it would be. `flow status` says how many failed, and how"
        )
    found = ask(run.path, "tasks", app=app, states=list(states), offset=offset, limit=limit)
    rows = tuple(
        TaskRow(one["task"], one["app"], one["state"], one["executor"], one["tries_made"], one["since_ns"], None, "")
        for one in found["tasks"]
    )
    return TaskList(rows, found["total"], unfinished_only=True)


def _from_failures(run: Run, task: int, refused: LookupError | None) -> dict[str, Any]:
    for group in status_of(run).failures:
        if group.first == task:
            return {"task": task, "app": group.app, "state": "failed", "error": group.text}
    said = f"{refused.args[0]}; of" if refused is not None else "of"
    raise LookupError(
        f"task {task} of run {run.path} is not known: {said} ended tasks only the first failure of each kind is kept "
        "without Config(monitoring=MonitoringHub())"
    )
