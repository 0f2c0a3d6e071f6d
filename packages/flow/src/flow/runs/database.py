"""The monitoring database of a run, where it has one: found beside its directory, or named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flow.runs.find import Run
from flow_monitor.errors import MonitorError, NoSuchRecord
from flow_monitor.queries import workflows
from flow_monitor.queries.database import Connection, open_database
from flow_monitor.queries.records import Workflow


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run in its database.

    Attributes:
        connection: In one read transaction.
        row: The run there.
    """

    connection: Connection
    row: Workflow

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.row.run_id


@contextmanager
def recorded(run: Run, database: str | None = None) -> Iterator[Recorded]:
    """Give a run in its database.

    Args:
        run: The run.
        database: URI or path of the database; by default ``monitoring.db`` beside the directory of the run.

    Raises:
        MonitorError: it has no database, or that cannot be read, or the run is not in it.
    """
    place = run.database
    if database is None and not place.exists():
        raise MonitorError(
            f"what tasks run {run.path} had is not recorded: there is no {place}. With "
            "Config(monitoring=MonitoringHub()) it is; a database that is elsewhere is named with --database"
        )
    with ExitStack() as stack:
        opened = stack.enter_context(open_database(database or str(place)))
        connection = stack.enter_context(opened.connect())
        row = _row_of(connection, run)
        if row is None:
            raise MonitorError(
                f"run {run.path} is not in {opened.name}: it had no monitoring, wrote into another database "
                "(--database), or has begun just now"
            )
        yield Recorded(connection, row)


def _row_of(connection: Connection, run: Run) -> Workflow | None:
    if run.record is not None:
        try:
            return workflows.one(connection, run.record.run_id)
        except NoSuchRecord:
            return None
    here = run.path.resolve()
    rows = workflows.page(connection, limit=1000).items
    return next((row for row in rows if row.rundir and Path(row.rundir).resolve() == here), None)
