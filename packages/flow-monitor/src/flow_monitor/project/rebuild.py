"""Makes the rows of runs again from their event logs."""

from __future__ import annotations

import logging
from pathlib import Path

from flow_monitor.errors import LogError
from flow_monitor.log.reader import LogReader
from flow_monitor.log.writer import LOG_NAME
from flow_monitor.project.projector import Job, Projector
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.schema.engine import writing_engine
from flow_monitor.schema.version import upgrade as upgrade_schema

logger = logging.getLogger("flow.monitor.rebuild")


def log_of(run_dir: Path) -> Path:
    """Return where the event log of a run directory is."""
    return run_dir / "monitoring" / LOG_NAME


def rebuild(run_dir: Path, endpoint: str, *, patience_s: float = 30.0) -> Progress:
    """Delete what the database knows of a run and make it again from the run's log.

    What workers reported in files before the run was killed, and nobody read, is brought into the log first.

    Args:
        run_dir: A run directory (``runinfo/NNN``), or its event log.
        endpoint: URI of the database.
        patience_s: How long a locked or absent database is tried.

    Raises:
        LogError: there is no log, or it is not one.
        MonitorError: the database is not ours, or the run is being written by its own process.
    """
    path = log_of(run_dir) if run_dir.is_dir() else run_dir
    run_id = _run_of(path)
    engine = writing_engine(endpoint)
    try:
        upgrade_schema(engine)
        RunStore(engine, run_id, str(path)).clear()
    finally:
        engine.dispose()
    return Projector(Job(run_id, path.absolute(), endpoint), lambda _seconds: False, patience_s, logger).run()


def upgrade(endpoint: str) -> None:
    """Bring the schema of a database to the newest version. Raises MonitorError where it is not ours or newer."""
    engine = writing_engine(endpoint)
    try:
        upgrade_schema(engine)
    finally:
        engine.dispose()


def _run_of(path: Path) -> str:
    with LogReader(path) as reader:
        reader.read(1, final=True)
        if reader.run_id is None:
            raise LogError(f"{path} is empty: there is nothing to rebuild from")
        return reader.run_id
