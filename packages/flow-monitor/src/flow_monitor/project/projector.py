"""The projector of one run: reads its log, writes rows, resumes exactly where it stopped. Outages only delay it."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from flow_monitor.log.reader import LogReader, Position, ReadBatch
from flow_monitor.project.projection_core import Projection
from flow_monitor.project.recovery import recover
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.schema.engine import writing_engine
from flow_monitor.schema.version import upgrade

BATCH_EVENTS = 20_000  # events; bounds memory, and what is done again after a kill
LEAST_BATCH_EVENTS = 500  # events; the first batch, and each on a starved machine
LONGEST_BATCH_S = 0.4  # seconds; the end of a run waits for the niced batch that is under way
_BUSY_S = 0.1  # seconds between looks at a log that grows slowly: pages are at most this much behind
_IDLE_S = 0.5  # seconds between looks at a log in which nothing happens
_HEARTBEAT_S = 15.0  # seconds; only the magnitude matters: pages call a run silent without them, see SILENT_AFTER_NS
_BACKOFF_MAX_S = 10.0  # seconds between tries while the database is away
_LOCKED_MAX_S = 0.5  # while it is locked: a lock is let go at any moment, and whoever pauses long misses that
_TOLD_AFTER_S = 2.0
"""Seconds after which an unwritable database is reported to the script; locks of a reader are over before."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """Job of a projector: the run, its log, and the database's URI."""

    run_id: str
    log_path: Path
    endpoint: str


@dataclass(frozen=True, slots=True)
class _Work:
    """Open parts of a projection: log reader, projection core and store."""

    reader: LogReader
    fold: Projection
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
        # Opening is retried as writing is: the database may be locked, or its server start later than the run.
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
                # A batch that was nearly full means that the log has more: no pause then.
                self._sleep(_BUSY_S if len(portion.rows) < size // 4 else 0.0)
                continue
            if time.monotonic() - quiet_since > _HEARTBEAT_S:
                quiet_since = time.monotonic()
                self._insist("say that it lives", lambda: work.store.heartbeat(time.time_ns()))
            self._sleep(_IDLE_S)

    def finish(self) -> Progress:
        """Project the rest of the log, with unread report files of workers, and end the run in the database.

        Raises:
            Outage: the database stayed unreachable; what was not written is still in the log.
            MonitorError: another process projects the run.
        """
        work = self._work
        # Before the last batches, so that they are read from the log as everything else: the log stays the one source.
        recover(self._job.log_path, self._logger)
        while self._project(work, work.reader.read(BATCH_EVENTS, final=True)):
            pass
        # The database says "finished" only when the log is on the disk, from which it could be made again.
        work.reader.sync()
        # died=True has an effect only where the log has no end of the run.
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

    def _open(self) -> tuple[RunStore, Projection]:
        if self._engine is not None:
            self._engine.dispose()
        self._engine = writing_engine(self._job.endpoint)
        upgrade(self._engine)
        store = RunStore(self._engine, self._job.run_id, str(self._job.log_path))
        self._progress = store.resume()
        # A run that begins has no tasks to load.
        tally = store.load_tally() if self._progress.position.offset else None
        return store, Projection(self._job.run_id, tally)

    @property
    def _work(self) -> _Work:
        assert self._opened is not None, "open() comes first"
        return self._opened

    def _project(self, work: _Work, portion: ReadBatch) -> bool:
        """Bring a portion into the database; return whether there was anything in it."""
        if portion.position == self._progress.position:
            return False
        work.fold.fold_rows(portion.rows)
        self._write(work, portion.position, len(portion.rows), portion.damaged)
        return True

    def _write(self, work: _Work, position: Position, events: int, damaged: int) -> None:
        # The closure below may run several times: it must see the progress of before, whichever try succeeds.
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
                # The patience is for one outage, not for the sum of all.
                self._give_up_at = None
                # Only what was announced as stuck is announced as over; the first try is silent.
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
                # The patience begins when the writer is gone: while the run goes on the projection waits for any time.
                self._give_up_at = self._give_up_at or time.monotonic() + self._patience_s
                if time.monotonic() >= self._give_up_at:
                    raise Outage(f"cannot {what}: {reason}") from reason
                # wait() no longer sleeps when the writer is gone.
                time.sleep(pause)
            self._sleep(pause)
            pause = min(pause * 2, _LOCKED_MAX_S if _is_locked(reason) else _BACKOFF_MAX_S)


def _next_size(size: int, took_s: float) -> int:
    """Return how many events the next batch may have, after one that took so long."""
    if took_s > LONGEST_BATCH_S:
        # Smaller at once, larger in steps: a machine that has become busy delays only one batch.
        return max(LEAST_BATCH_EVENTS, size // 4)
    return min(BATCH_EVENTS, 2 * size) if took_s < LONGEST_BATCH_S / 4 else size


def cause_of(error: Exception) -> str:
    """Return the first line of the message of a database driver or of the operating system."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _is_locked(error: Exception) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    # The lower byte: extended codes say more above it.
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _passes(error: DBAPIError | OSError) -> bool:
    """Return whether what went wrong may be over by itself: locks, outages, full disks."""
    # Of a lost connection the class depends on the driver; SQLAlchemy says so by connection_invalidated.
    return isinstance(error, OperationalError | OSError) or error.connection_invalidated
