"""Logs and databases of made-up runs, without processes: for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from alembic import command
from alembic.config import Config

from flow_core.interfaces.events import Event, RunStarted
from flow_monitor.log.writer import LogWriter
from flow_monitor.project.rebuild import log_of, rebuild
from flow_monitor.schema import version
from flow_monitor.schema.engine import writing_engine
from flow_monitor.testing.synthetic import SyntheticRun


def write_log(run_dir: Path, run_id: str, events: Iterable[Event]) -> Path:
    """Write the event log of a run, as its hub would; return its path."""
    path = log_of(run_dir)
    writer = LogWriter(path, run_id, 1)
    writer.append(list(events))
    writer.close()
    return path


def make_database(directory: Path, *runs: SyntheticRun) -> Path:
    """Project runs into ``directory/monitoring.db``, each with a run directory beside it; return the file's path."""
    path = directory / "monitoring.db"
    for run in runs:
        run_dir = directory / f"run-{run.seed}-{run.tasks}-{abs(hash(run.run_id))}"
        events = (replace(e, run_dir=str(run_dir)) if isinstance(e, RunStarted) else e for e in run.events())
        write_log(run_dir, run.run_id, events)
        rebuild(run_dir, f"sqlite:///{path}")
    return path


def as_version(path: Path, number: int) -> None:
    """Take a SQLite database back to what an older version made."""
    engine = writing_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(version.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.downgrade(config, f"{number:04d}")
    engine.dispose()
