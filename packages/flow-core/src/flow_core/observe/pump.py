"""Event pump: takes tuples from the hot path, makes events of them for the sinks that want them.

The kernel appends ``(EventClass, *fields)``: one bound ``deque.append``, no lock, no object. The pump's thread looks at
most every 50 ms and at least every 100 ms (in the first second of a rush, once), builds the events that some sink
wants, and hands them to one worker a sink (see ``sink_worker``). A log that writes at once therefore has what is 100 ms
old. Nothing here ever blocks a caller: submission may ask ``congested`` and wait for room by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from flow_core.guard import is_a, name_of, one_line, pass_signal
from flow_core.hooks import BEGIN, Calling, Noted
from flow_core.interfaces.events import Event, EventKind, EventRecord, EventsLost
from flow_core.interfaces.sinks import EventSink, RunInfo
from flow_core.observe.sink_worker import SinkWorker

# Seconds between looks at the queue. A script that is killed loses what was not written: after a rest that was up to
# 0.8 s of events once; two of these are a tenth of a second now.
_BUSY_S = 0.05
_HOT = 1500  # events in one look that make it a rush: 30,000 a second, which only short tasks make
_HOLD_S = 1.0  # seconds that the begin of a rush is held back: bursts that are over by then cost the script nothing
_CALM_S = 2.0  # seconds without one after which a rush is a new one
_CHUNK = 5000  # events handed over at once: few calls a sink, and no list that holds all of a long queue


class EventPump:
    """An EventPort that never blocks. Start it before the run, close it after.

    Attributes:
        wants: Union of what the sinks want, NONE before ``start`` and after ``close``. Flags are slow: read it rarely.
        append: The hot path: takes a tuple ``(EventClass, *fields)`` or an event. Any thread, 0.1 us, never raises. It
            does not wake the pump, which looks again within 100 ms; ``wake`` does.
        congested: Whether sinks are so far behind that submitting threads should ``wait_for_room``.
    """

    def __init__(
        self,
        sinks: Sequence[EventSink],
        run: RunInfo,
        logger: logging.Logger,
        *,
        soft_limit: int = 100_000,
        hard_limit: int = 500_000,
    ) -> None:
        """Take the sinks of a run.

        ``soft_limit`` is how many events may wait for one sink before the pump is ``congested``, ``hard_limit`` before
        they are dropped and counted.
        """
        self.wants = EventKind.NONE
        self.congested = False
        self._queue: deque[EventRecord | Event] = deque()
        self.append: Callable[[EventRecord | Event], None] = self._queue.append
        self._sinks = list(sinks)
        self._run_info = run
        self._logger = logger
        self._soft_limit = soft_limit
        self._hard_limit = hard_limit
        self._workers: list[SinkWorker] = []
        self._record_workers: list[SinkWorker] = []
        self._event_workers: list[SinkWorker] = []
        self._routes: dict[object, list[SinkWorker]] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._room = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: int | None = None
        self._closing = threading.Lock()

    def start(self) -> None:
        """Start the sinks, then the pump; with no sinks nothing runs. Raises what a sink's ``start`` raises."""
        started: list[EventSink] = []
        try:
            for sink in self._sinks:
                _begin(sink, self._run_info)
                started.append(sink)
            run_id = self._run_info.run_id
            self._workers = [
                SinkWorker(sink, self._logger, self._hard_limit, self._disabled, run_id) for sink in self._sinks
            ]
        except BaseException:
            # Those that have started may have opened files: they are closed, and the run does not begin.
            for sink in started:
                _end(sink, self._logger)
            raise
        self._record_workers = [worker for worker in self._workers if worker.takes_records]
        self._event_workers = [worker for worker in self._workers if not worker.takes_records]
        self._update_wants()
        if not self._workers:
            return
        for worker in self._workers:
            worker.start()
        self._thread = threading.Thread(target=self._run, name="flow-events", daemon=True)
        self._thread.start()

    def post(self, event: Event) -> None:
        """Queue one event and wake the pump, which looks at it within 50 ms. Any thread; never blocks."""
        # After the end nothing would take it out of the queue.
        if self._thread is None or self._stop.is_set():
            return
        self._queue.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def wake(self) -> None:
        """Wake the pump, so that it looks at what was appended within 50 ms, not 100. Any thread; never blocks."""
        if not self._wake.is_set():
            self._wake.set()

    def wait_for_room(self, timeout_s: float = 1.0) -> bool:
        """Wait while the pump is congested, at most ``timeout_s``; return whether there is room."""
        if not self.congested:
            return True
        self._room.wait(timeout_s)
        return not self.congested

    def backlog(self) -> int:
        """Return how many events wait at most for one sink."""
        return len(self._queue) + max((worker.backlog for worker in self._workers), default=0)

    def close(self, timeout_s: float = 10.0) -> int:
        """Hand over what is left and close the sinks within ``timeout_s``; idempotent.

        Returns:
            How many events are not durable: lost, left over, or not written by a sink. A sink that was disabled counts
            with what it was given until then.
        """
        with self._closing:
            if self._lost is None:
                self._lost = self._close(time.monotonic() + timeout_s)
            return self._lost

    def _close(self, deadline: float) -> int:
        # First the pump, which hands over what is left; then each sink's worker has its last events.
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            for worker in self._workers:
                worker.finish(deadline)
        # No new events: no sink would record them.
        self.wants = EventKind.NONE
        lost = sum(worker.join(deadline) for worker in self._workers)
        self.congested = False
        self._room.set()
        return lost + (len(self._queue) if self._workers else 0)

    # -- the pump's thread

    def _run(self) -> None:
        rushed = -_CALM_S
        while True:
            # Before the queue is drained: what was posted until ``close`` is handed over, whatever comes meanwhile.
            stopping = self._stop.is_set()
            # Before the look, so that a wake-up that comes during it is not lost.
            self._wake.clear()
            if time.monotonic() - rushed > _CALM_S:
                self._hold()
            if self._drain() > _HOT:
                rushed = time.monotonic()
            if stopping:
                return
            if not self._stop.wait(_BUSY_S) and not self._queue:
                self._wake.wait(_BUSY_S)

    def _hold(self) -> None:
        """When a rush begins, leave the interpreter to those who make events: for a second, or until it is over.

        What a burst of short tasks costs is the lock of the interpreter, and events can be told after it as well. A
        rush that goes on is told of at once, since it must be some time: so little is lost if the process is killed.
        """
        until, before = time.monotonic() + _HOLD_S, 0
        while before + _HOT < len(self._queue) < self._soft_limit * 0.9 and time.monotonic() < until:
            before = len(self._queue)
            if self._stop.wait(_BUSY_S):
                return

    def _drain(self) -> int:
        moved = 0
        while chunk := self._chunk():
            moved += len(chunk)
            self._hand_over(chunk)
        self._measure()
        return moved

    def _chunk(self) -> list[EventRecord | Event]:
        """Take up to _CHUNK items; only this thread takes, so that the length can only grow meanwhile."""
        return [self._queue.popleft() for _ in range(min(_CHUNK, len(self._queue)))]

    def _hand_over(self, chunk: Sequence[EventRecord | Event]) -> None:
        # Sinks that take records get the tuples: no event is built for the log, which writes fields.
        for worker in self._record_workers:
            worker.put(chunk)
        if not self._event_workers:
            return
        batches: dict[SinkWorker, list[Event]] = {worker: [] for worker in self._event_workers}
        routes = self._routes
        for item in chunk:
            cls = item[0] if isinstance(item, tuple) else type(item)
            route = routes.get(cls)
            if route is None:
                route = self._route(cls)
            if not route:
                continue
            event = self._build(item)
            if event is not None:
                for worker in route:
                    batches[worker].append(event)
        for worker, events in batches.items():
            if events:
                worker.put(events)

    def _route(self, cls: object) -> list[SinkWorker]:
        kind = getattr(cls, "kind", None)
        route = [worker for worker in self._event_workers if isinstance(kind, EventKind) and kind in worker.wants]
        if not isinstance(kind, EventKind):
            self._logger.error("Not an event: %r; it is dropped", cls)
        self._routes[cls] = route
        return route

    def _build(self, item: EventRecord | Event) -> Event | None:
        if not isinstance(item, tuple):
            return item
        try:
            event: Event = item[0](*item[1:])  # type: ignore[operator]  # an event class, by the contract of append
        except TypeError as error:
            self._logger.error("An event could not be made of %r: %s", item, error)
            return None
        return event

    def _measure(self) -> None:
        congested = self.backlog() > self._soft_limit
        if congested:
            self._room.clear()
        self.congested = congested
        if not congested:
            self._room.set()

    # -- called by workers

    def _disabled(self, gone: SinkWorker, count: int, reason: str) -> None:
        # Routes name the sink that is gone.
        self._routes.clear()
        self._update_wants()
        self.post(EventsLost(time.time_ns(), count, reason))

    def _update_wants(self) -> None:
        wants = EventKind.NONE
        for worker in self._workers:
            wants |= worker.wants
        self.wants = wants


def _begin(sink: EventSink, run: RunInfo) -> None:
    """Start a sink. What it raises is the reason why the run cannot begin; an exit becomes such a reason, too."""
    try:
        with Noted(BEGIN, "event sink", sink, "start"):
            sink.start(run)
    except BaseException as error:
        if is_a(error, Exception):
            raise
        with Calling(BEGIN, "event sink", sink, "start"):
            raise


def _end(sink: EventSink, logger: logging.Logger) -> None:
    try:
        sink.close(1.0)
    except BaseException as error:
        pass_signal(error)
        logger.error("Event sink %s failed to close: %s", name_of(sink), one_line(error))
