"""Rebuild of a run in the database: its rows are deleted and made again from its event log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from flow_monitor.errors import DatabaseBusy, LogError, NotOurDatabase
from flow_monitor.log.reader import LogReader
from flow_monitor.log.writer import LOG_NAME
from flow_monitor.project.projector import Job, Outage, Projector, cause_of
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.project.supervisor import without_password
from flow_monitor.schema.engine import writing_engine
from flow_monitor.schema.version import upgrade as upgrade_schema

logger = logging.getLogger("flow.monitor.rebuild")
_NO_EVENTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""Exceptions raised where values are of another kind than events have: a log may be somebody else's."""


def log_of(run_dir: Path) -> Path:
    """Return where the event log of a run directory is."""
    return run_dir / "monitoring" / LOG_NAME


def rebuild(run_dir: Path, endpoint: str, *, patience_s: float = 30.0) -> Progress:
    """Delete what the database knows of a run and make it again from the run's log.

    Unread report files of workers, left by a run that was killed, are brought into the log first.

    Args:
        run_dir: A run directory (``runinfo/NNN``), or its event log.
        endpoint: URI of the database.
        patience_s: How long a locked or absent database is tried.

    Raises:
        LogError: there is no log, or it is not one.
        MonitorError: the database is not ours, or the run is being written by its own process.
    """
    path = log_of(run_dir) if run_dir.is_dir() else run_dir
    # The log is read first: a file that is none must not cost the rows that are there.
    run_id = _run_of(path)
    with _writing(endpoint) as engine:
        upgrade_schema(engine)
        RunStore(engine, run_id, str(path)).clear()
    try:
        # wait() that returns False at once: the log has no writer, so the projection goes straight to its end.
        return Projector(Job(run_id, path.absolute(), endpoint), lambda _seconds: False, patience_s, logger).run()
    except Outage as error:
        raise DatabaseBusy(f"{without_password(endpoint)}: {error}") from error
    except (*_NO_EVENTS, SQLAlchemyError) as error:
        with _writing(endpoint) as engine:
            RunStore(engine, run_id, str(path)).clear()
        raise LogError(
            f"{path} holds what is no event ({type(error).__name__}): something else than Flow has written it. "
            "Nothing of it is kept in the database"
        ) from error


def upgrade(endpoint: str) -> None:
    """Bring the schema of a database to the newest version. Raises MonitorError where it is not ours or newer."""
    with _writing(endpoint) as engine:
        upgrade_schema(engine)


@contextmanager
def _writing(endpoint: str) -> Iterator[Engine]:
    """Give an engine that writes; what its driver raises is named by the database. Raises MonitorError."""
    try:
        engine = writing_engine(endpoint)
        try:
            yield engine
        finally:
            engine.dispose()
    except (DBAPIError, OSError) as error:
        kind = DatabaseBusy if isinstance(error, OperationalError) else NotOurDatabase
        raise kind(f"the database {without_password(endpoint)} cannot be written: {cause_of(error)}") from error


def _run_of(path: Path) -> str:
    with LogReader(path) as reader:
        reader.read(1, final=True)
        if reader.run_id is None:
            raise LogError(f"{path} is empty: there is nothing to rebuild from")
        return reader.run_id
