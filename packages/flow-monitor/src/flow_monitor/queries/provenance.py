"""Provenance of a run for exporters: its tasks one by one, with their files and their last try."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Table, and_, select
from sqlalchemy.engine import Connection

from flow_monitor.queries import rows, traffic
from flow_monitor.schema import tables as t

_PORTION = 10_000  # tasks a query, which bounds the memory of an export
_Use = tuple[str, str, float | None, int | None, int | None, int | None]
_NO_TRY: _Use = ("", "", None, None, None, None)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task of a run. Times are int64 nanoseconds UTC; ``host`` and use are those of its last try.

    Network traffic is in bytes, None where it is not known.
    """

    task_id: int
    app: str
    kind: str
    label: str
    status: str
    depends: tuple[int, ...]
    parent: int | None
    time_invoked: int | None
    time_running: int | None
    time_returned: int | None
    executor: str
    host: str
    cpu_s: float | None
    max_rss_kb: int | None
    error: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    net_sent: int | None = None
    net_received: int | None = None
    run_time_ns: int | None = None
    """Run time of its tries in nanoseconds, without the waits between them."""

    @property
    def name(self) -> str:
        """A name that is unique in the run."""
        return f"{self.app or 'task'}_{self.task_id}"

    @property
    def seconds(self) -> float:
        """Run time in seconds; 0 where not known."""
        return max(0, self.run_time_ns or 0) / 1e9


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that tasks read or wrote; ``size`` in bytes."""

    url: str
    size: int | None
    digest: str


def files(connection: Connection, run_id: str) -> dict[str, FileRecord]:
    """Return the files of a run by URL."""
    f = t.file.c
    query = select(f.url, f.size, f.digest).where(f.run_id == run_id)
    return {url: FileRecord(url, size, digest or "") for url, size, digest in connection.execute(query)}


def tasks(connection: Connection, run_id: str) -> Iterator[TaskRecord]:
    """Yield the tasks of a run by id, read in portions."""
    after = -1
    while True:
        c = t.task.c
        query = (
            select(*rows.TASK_COLUMNS).where(c.run_id == run_id, c.task_id > after).order_by(c.task_id).limit(_PORTION)
        )
        found = connection.execute(query).all()
        if not found:
            return
        last = found[-1].task_id
        inputs = _files_of(connection, t.input_file, run_id, after, last)
        outputs = _files_of(connection, t.output_file, run_id, after, last)
        tries = _last_tries(connection, run_id, after, last)
        for row in found:
            host, executor, cpu, rss, sent, received = tries.get(row.task_id, _NO_TRY)
            yield TaskRecord(
                row.task_id, row.task_func_name or "", row.task_kind or "", row.task_label or "",
                row.task_status or "", rows.ids(row.task_depends), row.task_parent, row.task_time_invoked,
                row.task_time_running, row.task_time_returned, executor or row.task_executor or "", host, cpu, rss,
                row.task_error or "", tuple(inputs[row.task_id]), tuple(outputs[row.task_id]),
                sent, received, row.task_run_time,
            )  # fmt: skip
        # By the last id, not by offset: the database would read all tasks before each portion.
        after = last


def _files_of(connection: Connection, table: Table, run_id: str, after: int, last: int) -> dict[int, list[str]]:
    c = table.c
    query = select(c.task_id, c.url).where(c.run_id == run_id, c.task_id > after, c.task_id <= last).order_by(c.url)
    found: dict[int, list[str]] = defaultdict(list)
    for task_id, url in connection.execute(query):
        found[task_id].append(url)
    return found


def _last_tries(connection: Connection, run_id: str, after: int, last: int) -> dict[int, _Use]:
    """Return host, executor, CPU seconds, memory and traffic of the last try of each task."""
    y = t.try_.c
    query = (
        select(y.task_id, y.try_id, y.hostname, y.task_executor, y.cpu_user_s, y.cpu_system_s, y.max_rss_kb)
        .where(and_(y.run_id == run_id, y.task_id > after, y.task_id <= last))
        .order_by(y.task_id, y.try_id)
    )
    seen = traffic.of_tries(connection, run_id, after + 1, last)
    found: dict[int, _Use] = {}
    for task_id, try_id, host, executor, user, system, rss in connection.execute(query):
        cpu = None if user is None else user + (system or 0.0)
        # In order of tries: the last one stays.
        found[task_id] = (host or "", executor or "", cpu, rss, *seen.get((task_id, try_id), traffic.UNKNOWN))
    return found
