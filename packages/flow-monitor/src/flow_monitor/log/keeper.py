"""The keeper of an event log: writes again what the disk had no room for, and reports what is missing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from flow_core.bounded_calls import start_unless_ending
from flow_monitor.log.records import Record
from flow_monitor.log.writer import KEPT_BYTES, LogWriter

_TRY_AGAIN_S = 1.0  # seconds between tries to write while no new events come
_PATIENCE_S = 5.0
"""Seconds for which the end of a run waits for room on the disk, at most; never more than a third of its time."""


class LogKeeper:
    """A log with a thread of its own that tries again while writing fails: also when no new events come.

    Each failure is one line in the log of the run when it begins, and one when it is over, with what was lost if
    anything was. ``append`` and ``close`` on one thread.
    """

    def __init__(self, writer: LogWriter, logger: logging.Logger) -> None:
        self._writer = writer
        self._logger = logger
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failing_since: float | None = None
        self._reported_lost = 0

    def append(self, records: Sequence[Record]) -> None:
        """Append events in order. Pump thread only; never raises: what cannot be written waits in memory."""
        with self._lock:
            self._writer.append(records)
            # The usual append ends here: no look at clocks while all is well.
            if self._writer.failure or self._failing_since is not None:
                self._look()

    def close(self, timeout_s: float) -> int:
        """Close the log, wait within the time for room on its disk; return the number of events lost. Idempotent."""
        # Before the lock, so that the thread that tries again releases the log.
        self._closed.set()
        with self._lock:
            lost = self._writer.close(max(0.0, min(_PATIENCE_S, timeout_s / 3)))
            self._look()
            return lost

    def _look(self) -> None:
        """Log a failure that began or is over, once each. Called under the lock."""
        writer = self._writer
        if writer.failure and not self._closed.is_set():
            if self._failing_since is None:
                self._failing_since = time.monotonic()
                self._logger.error(
                    "monitoring: events cannot be written to %s: %s. Up to %d MiB of them wait in memory until they "
                    "can: free some room", writer.path, writer.failure, KEPT_BYTES >> 20,
                )  # fmt: skip
                # A thread only while writing fails: a run whose last events found no room would else never write them.
                # None where the process ends: the close, which comes soon, tries again.
                start_unless_ending(threading.Thread(target=self._try_again, name="flow-monitor-log", daemon=True))
            return
        if self._failing_since is not None:
            took, self._failing_since = time.monotonic() - self._failing_since, None
            # At the close what could not be written has been given up, and is reported as lost below.
            if not writer.failure and not (self._closed.is_set() and writer.lost):
                self._logger.warning("monitoring: after %.1f s events are written to %s again", took, writer.path)
        if writer.lost > self._reported_lost:
            self._reported_lost = writer.lost
            self._logger.error(
                "monitoring: %d events between %s and %s are lost: %s is without them (%s)",
                writer.lost, _clock(writer.lost_from_ns), _clock(writer.lost_until_ns), writer.path, writer.lost_why,
            )  # fmt: skip

    def _try_again(self) -> None:
        while not self._closed.wait(_TRY_AGAIN_S):
            with self._lock:
                if self._closed.is_set() or self._failing_since is None:
                    return
                if self._writer.write_waiting():
                    self._look()
                    return


def _clock(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
