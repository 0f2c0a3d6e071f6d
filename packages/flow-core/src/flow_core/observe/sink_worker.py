"""Sink workers: a bounded queue and a thread for each sink, so that a slow sink delays nobody but itself."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from flow_core.errors import ConfigurationError
from flow_core.guard import is_a, name_of, one_line, shown, to_log
from flow_core.hooks import BEGIN, Calling
from flow_core.interfaces.events import Event, EventKind, EventRecord, EventsLost
from flow_core.interfaces.sinks import EventSink, RecordSink
from flow_core.observe.run_logger import lines_of

_BATCH = 2000  # events in one call of a sink, which the log writes at once; only the magnitude matters
_WAIT_S = 60.0  # seconds; a bound on each wait for events, after which the thread waits on
_STUCK_S = 10.0  # seconds in one call after which a sink counts as stuck: submissions no longer wait for it


class SinkWorker:
    """Feeds one sink in order. A sink that raises is disabled.

    Events without room are counted, and the sink gets an EventsLost for them.

    Attributes:
        name: The sink's type name, for messages.
        wants: The kinds it takes; NONE once it is disabled.
        lost: Events that did not reach the sink.
        takes_records: Whether it is fed records of all kinds as they are, not events of those it wants.
    """

    def __init__(
        self,
        sink: EventSink,
        logger: logging.Logger,
        limit: int,
        on_disabled: Callable[[SinkWorker, int, str], None],
        run_id: str = "",
    ) -> None:
        """Take a started sink, and how many events may wait for it. What the sink logs is the run's of this id.

        ``on_disabled`` is called once, on the lane's thread, with the number of events lost and the reason.
        """
        self.name = name_of(sink)
        self.wants = _wanted(sink)
        self.lost = 0
        self.takes_records = isinstance(sink, RecordSink)
        self._sink = sink
        self._hand_over: Callable[[Any], None] = sink.emit_records if isinstance(sink, RecordSink) else sink.emit
        self._logger = logger
        self._limit = limit
        self._run_id = run_id
        self._on_disabled = on_disabled
        self._queue: deque[EventRecord | Event] = deque()
        self._changed = threading.Condition()
        self._gap = 0
        self._gap_since_ns = 0
        self._in_hand = 0
        self._emitting_since: float | None = None
        self._deadline: float | None = None
        self._left = 0
        self._thread = threading.Thread(target=self._run, name=f"flow-events-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread that feeds the sink. Called once, by the pump, after the sink itself was started."""
        self._thread.start()

    def put(self, events: Sequence[EventRecord | Event]) -> None:
        """Queue events for the sink; those beyond the limit are dropped and counted. Never blocks on the sink."""
        with self._changed:
            if not self.wants:
                self.lost += len(events)
                return
            room = max(0, self._limit - len(self._queue))
            self._queue.extend(events[:room])
            missed = len(events) - room
            if missed > 0:
                # One line in the log for each gap, not for each event that is missing.
                if not self._gap:
                    self._gap_since_ns = time.time_ns()
                    self._logger.warning("Event sink %s is too slow: events are lost until it catches up", self.name)
                self._gap += missed
                self.lost += missed
            self._changed.notify()

    @property
    def backlog(self) -> int:
        """Events that wait for the sink; 0 for one that is disabled or stuck, since waiting for it would not help."""
        # Read once, since the thread that emits sets it to None.
        since = self._emitting_since
        stuck = since is not None and time.monotonic() - since > _STUCK_S
        return 0 if stuck or not self.wants else len(self._queue)

    def finish(self, deadline: float) -> None:
        """Ask the lane to hand over what waits, close the sink and end by a monotonic deadline."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def join(self, deadline: float) -> int:
        """Wait for the lane until the deadline; return the number of events that are not durable."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            if self._thread.is_alive():
                left = len(self._queue) + self._in_hand
                self._queue.clear()
                self._logger.warning(
                    "Event sink %s did not end in time: %d events may not be recorded", self.name, left
                )
                return self.lost + left
            return self.lost + self._left

    def _run(self) -> None:
        with lines_of(self._run_id):
            while (batch := self._take()) is not None:
                if batch:
                    self._emit(batch)
            self._close()

    def _take(self) -> list[EventRecord | Event] | None:
        """Return the next events, an empty list after a long wait, None at the end."""
        with self._changed:
            if not self._queue and self._deadline is None:
                self._changed.wait(_WAIT_S)
            if not self._queue:
                return [] if self._deadline is None else self._last_gap()
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            # Half, so that a sink at its limit does not get an event of loss with each batch.
            if self._gap and len(self._queue) < self._limit // 2:
                batch.extend(self._last_gap() or ())
            self._in_hand = len(batch)
            return batch

    def _last_gap(self) -> list[EventRecord | Event] | None:
        gap, self._gap = self._gap, 0
        if not gap or EventKind.LOG not in self.wants:
            return None
        return [EventsLost(time.time_ns(), gap, f"sink {self.name} was too slow", self._gap_since_ns)]

    def _emit(self, batch: list[EventRecord | Event]) -> None:
        self._emitting_since = time.monotonic()
        try:
            self._hand_over(batch)
        except BaseException as error:
            self._disable(len(batch), error)
        finally:
            self._emitting_since = None
            self._in_hand = 0

    def _disable(self, count: int, error: BaseException) -> None:
        with self._changed:
            # The whole batch counts: a sink does not say how much of it was recorded before it raised.
            lost = count + len(self._queue)
            self.lost += lost
            self._queue.clear()
            self.wants = EventKind.NONE
        self._logger.error(
            "Event sink %s is disabled after an error: %s", self.name, one_line(error), exc_info=to_log(error)
        )
        # Without the lock: the pump looks at all workers.
        self._on_disabled(self, lost, f"sink {self.name} is disabled: {one_line(error)}")

    def _close(self) -> None:
        assert self._deadline is not None
        try:
            left: object = self._sink.close(max(0.0, self._deadline - time.monotonic()))
            if is_a(left, int):
                self._left = left
            else:
                self._logger.error("Event sink %s: close() returned %s, no number", self.name, shown(left))
        except BaseException as error:
            self._logger.error("Event sink %s failed to close: %s", self.name, one_line(error), exc_info=to_log(error))


def _wanted(sink: EventSink) -> EventKind:
    """Return the kinds that a sink wants. Raises ConfigurationError or HookError."""
    with Calling(BEGIN, "event sink", sink, "wants"):
        wants: object = getattr(sink, "wants", None)
    if not is_a(wants, int):
        raise ConfigurationError(f"event sink {name_of(sink)}: its wants must be an EventKind, not {shown(wants)}")
    return EventKind(wants)
