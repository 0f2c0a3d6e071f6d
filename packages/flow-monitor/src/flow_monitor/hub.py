"""MonitoringHub: the sink by which a run's events reach a database. Imports no SQLAlchemy, so a script starts fast."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, TypeGuard

from flow_core.errors import ConfigurationError
from flow_core.interfaces.events import Event, EventKind, RunStarted
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.sinks import RunInfo
from flow_core.option_names import known_options
from flow_core.option_records import about, documented, options_of
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


def _number(value: object) -> TypeGuard[float]:
    # bool is an int for isinstance, and True is no number of seconds.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interval(value: object) -> str:
    well = _number(value) and 0 < value < math.inf
    return "" if well else "must be seconds above 0; to sample nothing set resource_monitoring_enabled=False"


def _patience(value: object) -> str:
    return "" if _number(value) and 0 <= value < math.inf else "must be seconds of at least 0"


def _endpoint(value: object) -> str:
    well = isinstance(value, str) and value.startswith(_SCHEMES) and "://" in value
    example = "sqlite:///path/to/monitoring.db or postgresql://user@host/name"
    return "" if well else f"must be the URI of a database, {example}"


def _flag(value: object) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _name(value: object) -> str:
    return "" if value is None or isinstance(value, str) else "must be text, or None"


_OF_OLD: Final = "Accepted for configurations of old; without effect, and a warning where it is given."


@documented
class MonitoringHub:
    """Records what a run does in a database that ``flow-visualize`` and ``flow_monitor.queries`` read.

    Pass one as ``Config(monitoring=MonitoringHub(...))``. Events go to ``run_dir/monitoring/events.log`` first, and
    from there to the database by a process of its own: a slow, locked or absent database delays the pages, no more.

    Raises:
        ConfigurationError: an option is wrong.
    """

    @known_options
    def __init__(
        self,
        hub_address: Annotated[str | None, about(_OF_OLD)] = None,
        hub_port: Annotated[int | None, about(_OF_OLD)] = None,
        monitoring_debug: Annotated[bool, about("Whether the hub logs in detail what it does.", _flag)] = False,
        resource_monitoring_interval: Annotated[
            float, about("Seconds between two resource samples on each node.", _interval)
        ] = _USUAL_INTERVAL_S,
        resource_monitoring_enabled: Annotated[bool, about("Whether nodes sample at all.", _flag)] = True,
        logging_endpoint: Annotated[
            str,
            about(
                "URI of the database: `sqlite:///path` or `postgresql://user@host/name`. The default is "
                "`monitoring.db` in the directory that holds the run directories.",
                _endpoint,
            ),
        ] = DEFAULT_ENDPOINT,
        workflow_name: Annotated[str | None, about("Name shown for the run; None means the script's.", _name)] = None,
        drain_patience_s: Annotated[
            float,
            about(
                "Seconds for which the projection goes on trying, after the run has ended, to reach a database that "
                "does not answer. It never blocks the run.",
                _patience,
            ),
        ] = 60.0,
    ) -> None:
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
        for option in _OPTIONS:
            value = getattr(self, option.name)
            if option.check is not None and (wrong := option.check(value)):
                # The URI of a database may hold a password.
                given = "" if option.name == "logging_endpoint" else f", not {value!r}"
                raise ConfigurationError(f"MonitoringHub: {option.name} {wrong}{given}")
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
        shown = {option.name: getattr(self, option.name) for option in _OPTIONS}
        shown["logging_endpoint"] = without_password(self.logging_endpoint)
        return f"MonitoringHub({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


# Found once, since to read annotations takes a millisecond.
_OPTIONS: Final = tuple(options_of(MonitoringHub))
