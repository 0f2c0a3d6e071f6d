"""How far a run is, in one record: asked of its script while it goes on, else read from its record and its database."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from flow.runs.find import ENDED as RUN_ENDED, FAILED, KILLED, UNKNOWN, Run, run_at
from flow_core.errors import RunNotLive
from flow_core.graph.states import State
from flow_core.kernel.failure_tally import FailureGroup
from flow_core.kernel.live import ask

if TYPE_CHECKING:
    from flow_monitor.queries.records import Workflow

_RECORDED = {"completed": RUN_ENDED, "failed": FAILED, "died": KILLED}
"""States of runs that have no record, by those in the database."""
ENDED = tuple(state.name for state in State if state.final)
"""Names of the states in which tasks end."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is. Times are int64 nanoseconds UTC, None where not known.

    Attributes:
        run: Its directory.
        state: State of the run, as in ``flow.runs.find``.
        name: Its name.
        script: Path of its script.
        host: Machine of its script.
        user: Who runs it.
        pid: Process id of its script; 0 where not known.
        began_ns: When it began.
        ended_ns: When it ended, or was last heard of.
        now_ns: When this was learned.
        tasks: Numbers of tasks as ``kernel.summary()`` has them; empty where nothing is known.
        apps: Numbers of tasks by app and state; of ended tasks only with monitoring.
        executors: Each executor with its load and blocks; none of a run that has ended.
        failures: Failed tasks by app and type of exception.
        held: What holds back calls of apps.
        monitored: Whether its tasks are in a database that could be read.
        note: Why they are not, where they should be.
        cost_s: Seconds of a CPU that this look took of the script.
    """

    run: str
    state: str
    name: str = ""
    script: str = ""
    host: str = ""
    user: str = ""
    pid: int = 0
    began_ns: int | None = None
    ended_ns: int | None = None
    now_ns: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    apps: dict[str, dict[str, int]] = field(default_factory=dict)
    executors: list[dict[str, Any]] = field(default_factory=list)
    failures: list[FailureGroup] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    monitored: bool = False
    note: str = ""
    cost_s: float = 0.0

    @property
    def ended_tasks(self) -> int:
        """Number of tasks that have ended, well or not."""
        return self.tasks.get("submitted", 0) - self.tasks.get("unfinished", 0)

    @property
    def duration_s(self) -> float | None:
        """Seconds that it took, or has taken so far; None where not known."""
        if self.began_ns is None or (self.ended_ns is None and self.state == KILLED):
            return None
        end = self.ended_ns if self.ended_ns is not None else self.now_ns
        return max(0, end - self.began_ns) / 1e9

    @property
    def rate(self) -> float | None:
        """Tasks that ended per second, since the begin of the run; None where not known."""
        return self.ended_tasks / self.duration_s if self.duration_s else None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it, with what follows from it."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        found["failures"] = [asdict(one) for one in self.failures]
        return {**found, "ended_tasks": self.ended_tasks, "duration_s": self.duration_s, "rate": self.rate}


def status_of(run: Run, database: str | None = None, timeout_s: float = 10.0) -> Status:
    """Return how far a run is.

    Args:
        run: The run.
        database: URI of its monitoring database; by default ``monitoring.db`` beside its directory.
        timeout_s: Seconds that its script has for an answer.

    Raises:
        RunNotLive: its script is there, and does not answer.
        MonitorError: the database that was named cannot be read.
    """
    asked: dict[str, Any] = {}
    if run.live:
        try:
            asked = ask(run.path, "status", timeout_s)
        except RunNotLive:  # it may have ended meanwhile
            run = run_at(run.path)
            if run.live:
                raise
    row, apps, note = _from_database(run, database)
    # What the script says of unfinished tasks is of this moment; the database lags behind by a second or two.
    if asked:
        apps = {app: {name: n for name, n in states.items() if name in ENDED} for app, states in apps.items()}
        for app, states in asked["unfinished"].items():
            apps.setdefault(app, {}).update(states)
    record = run.record
    tasks = asked.get("tasks") or (dict(record.tasks) if record is not None else {}) or _counts(row)
    failures = [FailureGroup(**one) for one in asked.get("failures", ())]
    if not failures and record is not None:
        failures = list(record.failures)
    found = Status(
        run=str(run.path),
        state=run.state if row is None or run.state != UNKNOWN else _RECORDED.get(row.state.value, UNKNOWN),
        now_ns=asked.get("now_ns") or time.time_ns(),
        tasks=tasks,
        apps={name: states for name, states in apps.items() if any(states.values())},
        executors=list(asked.get("executors", ())),
        failures=failures,
        held=list(asked.get("held", ())),
        monitored=row is not None,
        note=note,
        cost_s=float(asked.get("cost_s", 0.0)),
    )
    if record is not None:
        names = ("name", "script", "host", "user", "pid", "began_ns", "ended_ns")
        found = replace(found, **{name: getattr(record, name) for name in names})
    elif row is not None:
        found = replace(found, name=row.name, script=row.script, host=row.host, user=row.user, began_ns=row.time_began)
    if found.ended_ns is None and row is not None and not asked:
        found = replace(found, ended_ns=row.time_completed or row.time_last_event)
    if found.ended_ns is None and found.state == KILLED:
        found = replace(found, ended_ns=_last_line_ns(run))
    return found


def _last_line_ns(run: Run) -> int | None:
    """Return when the last line came to the log of a run; None where there is no log."""
    try:
        return (run.path / "flow.log").stat().st_mtime_ns
    except OSError:
        return None


def _from_database(run: Run, database: str | None) -> tuple[Workflow | None, dict[str, dict[str, int]], str]:
    """Return the run and its apps as the database has them, and why there are none where one should be there."""
    if not run.has_database(database):
        return None, {}, ""
    # Here, since it takes longer than all else, and most runs need none of it.
    from flow.runs.database import recorded
    from flow_monitor.errors import MonitorError
    from flow_monitor.queries import workflows

    try:
        with recorded(run, database) as found:
            apps = {app.name: dict(app.tasks) for app in workflows.apps(found.connection, found.run_id)}
            return found.row, apps, ""
    except MonitorError as error:
        if database is not None:
            raise
        return None, {}, str(error)


def _counts(row: Workflow | None) -> dict[str, int]:
    if row is None:
        return {}
    return {
        "submitted": row.submitted,
        "unfinished": row.unfinished,
        "completed": row.completed - row.memoized,
        "memoized": row.memoized,
        "failed": row.failed,
        "dep_failed": 0,
        "cancelled": row.cancelled,
    }
