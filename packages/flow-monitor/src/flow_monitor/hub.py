"""MonitoringHub: the sink by which a run's events reach a database. Imports no SQLAlchemy, so a script starts fast."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from flow_core.errors import ConfigurationError
from flow_core.interfaces.events import Event, EventKind, RunStarted
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.sinks import RunInfo
from flow_core.option_names import known_options
from flow_core.without_effect import warn_of
from flow_monitor.log.keeper import LogKeeper
from flow_monitor.log.records import Record
from flow_monitor.log.writer import LOG_NAME, LogWriter
from flow_monitor.project.supervisor import ProjectionSettings, Supervisor, without_password

logger = logging.getLogger("flow.monitor")

DEFAULT_ENDPOINT: Final = "sqlite:///runinfo/monitoring.db"
_USUAL_INTERVAL_S: Final = 30
_SCHEMES = ("sqlite:", "postgresql:", "postgresql+psycopg:", "postgres:")
_SAMPLER: Final = "flow_monitor.sampling.node:NodeSampler"
_THREAD_SAMPLER: Final = "flow_monitor.sampling.threads:ThreadSampler"


class MonitoringHub:
    """Records what a run does in a database that ``flow-visualize`` and ``flow_monitor.queries`` read.

    Pass one as ``Config(monitoring=MonitoringHub(...))``. Events go to ``run_dir/monitoring/events.log`` first, and
    from there to the database by a process of its own: a slow, locked or absent database delays the pages, no more.

    Args:
        hub_address: Accepted for configurations of old; without effect, and a warning where it is given.
        hub_port: Accepted for configurations of old; without effect, and a warning where it is given.
        monitoring_debug: Log what the hub does in detail.
        resource_monitoring_interval: Seconds between two resource samples on each node.
        resource_monitoring_enabled: Whether nodes sample at all.
        logging_endpoint: URI of the database: ``sqlite:///path`` or ``postgresql://user@host/name``. The default is
            ``monitoring.db`` in the directory that holds the run directories.
        workflow_name: Name shown for the run; default the script's.
        drain_patience_s: How long the projection goes on trying, after the run has ended, to reach a database that
            does not answer. It never blocks the run.

    Raises:
        ConfigurationError: an option is wrong.
    """

    @known_options
    def __init__(
        self,
        hub_address: str | None = None,
        hub_port: int | None = None,
        monitoring_debug: bool = False,
        resource_monitoring_interval: float = _USUAL_INTERVAL_S,
        resource_monitoring_enabled: bool = True,
        logging_endpoint: str = DEFAULT_ENDPOINT,
        workflow_name: str | None = None,
        drain_patience_s: float = 60.0,
    ) -> None:
        _check_interval(resource_monitoring_interval)
        _check_endpoint(logging_endpoint)
        # The kernel makes no event of a kind that no sink wants.
        self.wants = EventKind.ALL if resource_monitoring_enabled else EventKind.ALL & ~EventKind.SAMPLE
        self.hub_address = hub_address
        self.hub_port = hub_port
        self.monitoring_debug = monitoring_debug
        self.resource_monitoring_interval = resource_monitoring_interval
        self.resource_monitoring_enabled = resource_monitoring_enabled
        self.logging_endpoint = logging_endpoint
        self.workflow_name = workflow_name
        self.drain_patience_s = drain_patience_s
        self._log: LogKeeper | None = None
        self._supervisor: Supervisor | None = None
        self._lost = 0
        self._unnamed = False
        self._level_before: int | None = None
        warn_of("MonitoringHub", self.ineffective_options())

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        sentences = [
            f"{name}={getattr(self, name)!r} has no effect: events travel over the connections of tasks"
            for name in ("hub_address", "hub_port")
            if getattr(self, name) is not None
        ]
        interval = self.resource_monitoring_interval
        if not self.resource_monitoring_enabled and interval != _USUAL_INTERVAL_S:
            sentences.append(
                f"resource_monitoring_interval={interval!r} has no effect with resource_monitoring_enabled=False"
            )
        return sentences

    def sampler(self) -> SamplerSpec | None:
        """Return the specification of the samplers for nodes, None where sampling is off."""
        if not self.resource_monitoring_enabled:
            return None
        return SamplerSpec(_SAMPLER, float(self.resource_monitoring_interval), thread_factory=_THREAD_SAMPLER)

    def start(self, run: RunInfo) -> None:
        """Open the run's event log and start the projection.

        Raises:
            LogError: the log cannot be opened.
            ConfigurationError: the hub is in use by another run.
            OSError: the projection's process cannot be started.
        """
        # Two runs in one log could not be told apart, and each end would close it for the other.
        if self._log is not None:
            raise ConfigurationError("this MonitoringHub is used by a run that goes on: give each Config its own")
        for sentence in self.ineffective_options():
            logger.warning("MonitoringHub: %s", sentence)
        # Absolute: the script may change its working directory while the run goes on.
        path = (run.run_dir / "monitoring" / LOG_NAME).absolute()
        # Before the process: it reads the log, which must be there with its header.
        writer = LogWriter(path, run.run_id, run.epoch)
        settings = ProjectionSettings(run.run_id, path, self._endpoint(run), self.drain_patience_s)
        supervisor = Supervisor(settings, logger)
        if self.monitoring_debug:
            # The logger belongs to the process: its level is put back when this hub closes.
            self._level_before = logger.level
            logger.setLevel(logging.DEBUG)
        try:
            supervisor.start()
        except OSError:
            writer.close()
            self._quieten()
            raise
        self._log, self._supervisor, self._lost = LogKeeper(writer, logger), supervisor, 0
        self._unnamed = self.workflow_name is not None
        logger.debug("monitoring run %s in %s, projection pid %s", run.run_id, path, supervisor.pid)

    def emit(self, events: Sequence[Event]) -> None:
        """Append events to the log. Pump thread only; never raises: what cannot be written waits in memory."""
        self.emit_records(events)

    def emit_records(self, records: Sequence[Record]) -> None:
        """Append events to the log as the kernel made them, see ``RecordSink``. Pump thread only; never raises."""
        if self._log is None:
            return
        # Only until the first event of the run has its name: after that no record is looked at.
        if self._unnamed:
            records = [self._named(record) for record in records]
        self._log.append(records)

    def close(self, timeout_s: float) -> int:
        """Close the log, wait within the time for the database to have it all; return the number of events lost.

        Events are safe once they are in the log: a database that is behind costs none. Those that a full disk had no
        room for are written now, or counted as lost if there still is none after some seconds. Idempotent.
        """
        # Taken away first, so that a second close() returns at once.
        log, supervisor = self._log, self._supervisor
        self._log = self._supervisor = None
        if log is None or supervisor is None:
            return self._lost
        began = time.monotonic()
        # The log first: its end is what the projection waits for.
        self._lost = log.close(timeout_s)
        if not supervisor.close(timeout_s - (time.monotonic() - began)):
            logger.info("the monitoring database is behind; the projection goes on for a while in the background")
        self._quieten()
        return self._lost

    def _quieten(self) -> None:
        """Log no more in detail: a later hub of this process may not have asked for it."""
        if self._level_before is not None:
            logger.setLevel(self._level_before)
            self._level_before = None

    def _named(self, record: Record) -> Record:
        """Give the run's first event the workflow's name."""
        if not isinstance(record, RunStarted) or self.workflow_name is None:
            return record
        self._unnamed = False
        return replace(record, name=self.workflow_name)

    def _endpoint(self, run: RunInfo) -> str:
        """Return the database's URI with an absolute path."""
        # Beside the run directories, whatever run_dir the Config has: one database for all runs of a directory.
        if self.logging_endpoint == DEFAULT_ENDPOINT:
            return f"sqlite:///{run.run_dir.absolute().parent / 'monitoring.db'}"
        scheme, separator, path = self.logging_endpoint.partition(":///")
        if scheme == "sqlite" and separator:
            return f"sqlite:///{Path(path).absolute()}"
        return self.logging_endpoint

    def __repr__(self) -> str:
        names = ("hub_address", "hub_port", "monitoring_debug", "resource_monitoring_interval")
        more = ("resource_monitoring_enabled", "workflow_name", "drain_patience_s")
        shown = [f"{name}={getattr(self, name)!r}" for name in (*names, *more)]
        return f"MonitoringHub({', '.join(shown)}, logging_endpoint={without_password(self.logging_endpoint)!r})"


def _check_interval(value: object) -> None:
    # bool is an int for isinstance, and True is no number of seconds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
        raise ConfigurationError(
            f"MonitoringHub(resource_monitoring_interval={value!r}): give seconds > 0; "
            "to sample nothing set resource_monitoring_enabled=False"
        )


def _check_endpoint(value: object) -> None:
    if not isinstance(value, str) or not value.startswith(_SCHEMES) or "://" not in value:
        raise ConfigurationError(
            "MonitoringHub(logging_endpoint=...): give the URI of a database, sqlite:///path/to/monitoring.db or "
            "postgresql://user@host/name"
        )
