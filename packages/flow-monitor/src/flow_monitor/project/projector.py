"""The projection of one run: log in, rows out, resumed exactly where it stopped. Locks and outages only delay it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from flow_monitor.log.reader import LogReader, Portion, Position
from flow_monitor.project.core import Fold
from flow_monitor.project.recovery import recover
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.schema.engine import writing_engine
from flow_monitor.schema.version import upgrade

BATCH_EVENTS = 20_000
LEAST_BATCH_EVENTS = 500
LONGEST_BATCH_S = 0.4
_BUSY_S = 0.1
_IDLE_S = 0.5
_HEARTBEAT_S = 15.0
_BACKOFF_MAX_S = 10.0
_TOLD_AFTER_S = 1.0
"""A database that cannot be written this long is told of."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """What to project: the run, its log, and the database's URI."""

    run_id: str
    log_path: Path
    endpoint: str


@dataclass(frozen=True, slots=True)
class _Work:
    """What a projection reads, remembers and writes."""

    reader: LogReader
    fold: Fold
    store: RunStore


class Outage(Exception):
    """The database could not be reached until the time allowed was over."""


class Projector:
    """Projects one run. Used by one thread, and by another after ``follow`` has returned.

    Args:
        job: What to project.
        wait: Sleeps up to the seconds given; returns False when the log's writer is gone (then it must not sleep).
        patience_s: After the writer is gone, how long an unreachable database is tried.
        tell: Called with a reason and for how many seconds the database cannot be written; with "" when it can again.
    """

    def __init__(
        self,
        job: Job,
        wait: Callable[[float], bool],
        patience_s: float,
        logger: logging.Logger,
        tell: Callable[[str, float], None] = lambda _reason, _seconds: None,
    ) -> None:
        self._job = job
        self._wait = wait
        self._patience_s = patience_s
        self._logger = logger
        self._tell = tell
        self._live = True
        self._give_up_at: float | None = None
        self._progress = Progress()
        self._engine: Engine | None = None
        self._opened: _Work | None = None

    def run(self) -> Progress:
        """Project until the writer is gone and the log is at its end. Raises what its parts raise."""
        try:
            self.open()
            self.follow()
            return self.finish()
        finally:
            self.close()

    def open(self) -> None:
        """Open the database and the log, where they were left.

        Raises:
            Outage: the database stayed unreachable; what was not written is still in the log.
            MonitorError: the log or the database is not ours, or another process projects the run.
        """
        store, fold = self._insist("open the database", self._open)
        self._opened = _Work(LogReader(self._job.log_path, self._progress.position), fold, store)
        if self._progress.position.offset:
            self._logger.info("going on at byte %d of the log", self._progress.position.offset)

    def follow(self) -> None:
        """Project until the writer is gone. Raises as ``finish``.

        Batches are of a size that takes no longer than ``LONGEST_BATCH_S`` on the clock: on a busy machine, at the
        lowest priority, large ones would keep those waiting who want the run to end.
        """
        work = self._work
        size, quiet_since = LEAST_BATCH_EVENTS, time.monotonic()
        while self._live:
            began = time.monotonic()
            portion = work.reader.read(size)
            if self._project(work, portion):
                quiet_since = time.monotonic()
                size = _next_size(size, quiet_since - began)
                self._sleep(_BUSY_S if len(portion.rows) < size // 4 else 0.0)
                continue
            if time.monotonic() - quiet_since > _HEARTBEAT_S:
                quiet_since = time.monotonic()
                self._insist("say that it lives", lambda: work.store.heartbeat(time.time_ns()))
            self._sleep(_IDLE_S)

    def finish(self) -> Progress:
        """Project what is left, with what workers reported and nobody read, and end the run in the database.

        Raises:
            Outage: the database stayed unreachable; what was not written is still in the log.
            MonitorError: another process projects the run.
        """
        work = self._work
        recover(self._job.log_path, self._logger)
        while self._project(work, work.reader.read(BATCH_EVENTS, final=True)):
            pass
        work.reader.sync()
        self._insist("finish", lambda: work.store.finish(died=True))
        return self._progress

    def close(self) -> None:
        """Give back the connection and the log. Idempotent."""
        if self._opened is not None:
            self._opened.reader.close()
            self._opened = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _open(self) -> tuple[RunStore, Fold]:
        if self._engine is not None:
            self._engine.dispose()
        self._engine = writing_engine(self._job.endpoint)
        upgrade(self._engine)
        store = RunStore(self._engine, self._job.run_id, str(self._job.log_path))
        self._progress = store.resume()
        tally = store.load_tally() if self._progress.position.offset else None
        return store, Fold(self._job.run_id, tally)

    @property
    def _work(self) -> _Work:
        assert self._opened is not None, "open() comes first"
        return self._opened

    def _project(self, work: _Work, portion: Portion) -> bool:
        """Bring a portion into the database; return whether there was anything in it."""
        if portion.position == self._progress.position:
            return False
        work.fold.fold_rows(portion.rows)
        self._write(work, portion.position, len(portion.rows), portion.damaged)
        return True

    def _write(self, work: _Work, position: Position, events: int, damaged: int) -> None:
        before = self._progress
        after = Progress(position, before.events + events, before.damaged + damaged)
        if damaged:
            self._logger.warning("%d bytes of the log before byte %d are damaged", damaged, position.offset)
        rows = work.fold.take()
        self._insist("write", lambda: work.store.apply(rows, before, after, time.time_ns()))
        self._progress = after

    def _sleep(self, seconds: float) -> None:
        if self._live:
            self._live = self._wait(seconds)

    def _insist(self, what: str, act: Callable[[], T]) -> T:
        """Do something with the database until it works; raise Outage when the patience is over."""
        pause, began = 0.05, time.monotonic()
        while True:
            try:
                result = act()
                self._give_up_at = None
                if pause > 0.05:
                    self._tell("", time.monotonic() - began)
                return result
            except (DBAPIError, OSError) as error:
                if not _passes(error):
                    raise
                reason = error
            self._logger.warning("cannot %s yet: %s", what, str(reason).splitlines()[0])
            if time.monotonic() - began >= _TOLD_AFTER_S:
                self._tell(cause_of(reason), time.monotonic() - began)
            if not self._live:
                self._give_up_at = self._give_up_at or time.monotonic() + self._patience_s
                if time.monotonic() >= self._give_up_at:
                    raise Outage(f"cannot {what}: {reason}") from reason
                time.sleep(pause)
            self._sleep(pause)
            pause = min(pause * 2, _BACKOFF_MAX_S)


def _next_size(size: int, took_s: float) -> int:
    """Return how many events the next batch may have, after one that took so long."""
    if took_s > LONGEST_BATCH_S:
        return max(LEAST_BATCH_EVENTS, size // 4)
    return min(BATCH_EVENTS, 2 * size) if took_s < LONGEST_BATCH_S / 4 else size


def cause_of(error: Exception) -> str:
    """Return what the driver of a database, or the system, said in one line."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _passes(error: DBAPIError | OSError) -> bool:
    """Return whether what went wrong may be over by itself: locks, outages, full disks."""
    return isinstance(error, OperationalError | OSError) or error.connection_invalidated
