"""Database rows as records, with plain values where a column is null."""

from __future__ import annotations

from typing import Any, Final

import orjson

from flow_monitor.queries.records import SILENT_AFTER_NS, RunState, Task, Try, Workflow
from flow_monitor.schema import tables as t

DbRow = Any
"""A row of SQLAlchemy: columns as attributes."""

_DIGITS = 19
"""Digits of the largest signed 64-bit number: shorter texts surely fit."""
TASK_COLUMNS: Final = tuple(t.task.c)


def workflow(row: DbRow, now_ns: int) -> Workflow:
    """Return a run; ``now_ns`` is compared with its last sign of life."""
    return Workflow(
        run_id=row.run_id,
        name=row.workflow_name or "(not known yet)",
        state=_state(row, now_ns),
        time_began=row.time_began,
        time_completed=row.time_completed,
        time_last_event=row.time_last_event,
        host=row.host or "",
        user=row.user or "",
        rundir=row.rundir or "",
        script=row.script or "",
        flow_version=row.flow_version or "",
        python_version=row.python_version or "",
        executors=_texts(row.executors),
        submitted=row.tasks_submitted_count or 0,
        completed=row.tasks_completed_count or 0,
        failed=row.tasks_failed_count or 0,
        memoized=row.tasks_memoized_count or 0,
        cancelled=row.tasks_cancelled_count or 0,
        events_lost=row.events_lost_count or 0,
        time_heard=max(row.heartbeat or 0, row.time_last_event or 0) or None,
        # The end of a run and of its projection change rows while the position stays.
        revision=(row.position or 0) * 4 + (row.finished or 0) * 2 + (row.ended_how is not None),
    )


def _state(row: DbRow, now_ns: int) -> RunState:
    if row.ended_how == "ended":
        return RunState.FAILED if row.tasks_failed_count else RunState.COMPLETED
    if row.ended_how == "died":
        return RunState.DIED
    heard = max(row.heartbeat or 0, row.time_last_event or 0)
    return RunState.RUNNING if now_ns - heard < SILENT_AFTER_NS else RunState.SILENT


def task(row: DbRow) -> Task:
    """Return a task as in lists."""
    return Task(
        task_id=row.task_id,
        app=row.task_func_name or "",
        kind=row.task_kind or "",
        label=row.task_label or "",
        status=row.task_status or "",
        executor=row.task_executor or "",
        depends=ids(row.task_depends),
        depth=row.task_depth or 0,
        tries=row.task_tries or 0,
        fail_count=row.task_fail_count or 0,
        from_memo=bool(row.task_from_memo),
        time_invoked=row.task_time_invoked,
        time_running=row.task_time_running,
        time_returned=row.task_time_returned,
        error=row.task_error or "",
        run_time_ns=row.task_run_time,
    )


def try_(row: DbRow, traffic: tuple[int | None, int | None]) -> Try:
    """Return a try; ``traffic``: bytes sent and received."""
    return Try(
        try_id=row.try_id,
        executor=row.task_executor or "",
        block=row.block_id or "",
        host=row.hostname or "",
        manager=row.manager or "",
        worker=row.worker,
        pid=row.pid,
        time_launched=row.task_try_time_launched,
        time_running=row.task_try_time_running,
        time_returned=row.task_try_time_returned,
        verdict=row.task_try_verdict or "",
        error=row.task_fail_history or "",
        cpu_user_s=row.cpu_user_s,
        cpu_system_s=row.cpu_system_s,
        max_rss_kb=row.max_rss_kb,
        net_sent=traffic[0],
        net_received=traffic[1],
    )


def ids(text: str | None) -> tuple[int, ...]:
    """Return the task ids of a list as stored. What is none is left out: others may write to the same database."""
    parts = text.split(",") if text else ()
    return tuple(int(part) for part in parts if len(part) < _DIGITS and part.isascii() and part.isdecimal())


def _texts(text: str | None) -> tuple[str, ...]:
    """Return the texts of a list as stored; none where it is something else."""
    try:
        found = orjson.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
