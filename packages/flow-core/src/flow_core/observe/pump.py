"""The event pump: takes tuples from the hot path, makes events of them for the sinks that want them.

The kernel appends ``(EventClass, *fields)``: one bound ``deque.append``, no lock, no object. The pump's thread looks at
most every 50 ms and at least every 100 ms (in the first second of a rush, once), builds the events that some sink
wants, and hands them to one lane a sink (see ``lane``). A log that writes at once therefore has what is 100 ms old.
Nothing here ever blocks a caller: submission may ask ``congested`` and wait for room by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from flow_core.guard import is_a, name_of, one_line, pass_signal
from flow_core.hooks import Calling
from flow_core.interfaces.events import Event, EventKind, EventsLost
from flow_core.interfaces.sinks import EventSink, RunInfo
from flow_core.observe.lane import Lane

_BUSY_S = 0.05
_HOT = 1500
_HOLD_S = 1.0
_CALM_S = 2.0
"""After so long without one a rush is a new one."""
_CHUNK = 5000


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
        self._queue: deque[tuple[object, ...] | Event] = deque()
        self.append: Callable[[tuple[object, ...] | Event], None] = self._queue.append
        self._sinks = list(sinks)
        self._run_info = run
        self._logger = logger
        self._soft_limit = soft_limit
        self._hard_limit = hard_limit
        self._lanes: list[Lane] = []
        self._whole: list[Lane] = []
        self._choosy: list[Lane] = []
        self._routes: dict[object, list[Lane]] = {}
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
            self._lanes = [Lane(sink, self._logger, self._hard_limit, self._disabled, run_id) for sink in self._sinks]
        except BaseException:
            for sink in started:
                _end(sink, self._logger)
            raise
        self._whole = [lane for lane in self._lanes if lane.takes_records]
        self._choosy = [lane for lane in self._lanes if not lane.takes_records]
        self._update_wants()
        if not self._lanes:
            return
        for lane in self._lanes:
            lane.start()
        self._thread = threading.Thread(target=self._run, name="flow-events", daemon=True)
        self._thread.start()

    def post(self, event: Event) -> None:
        """Hand over one event and see that it is looked at soon. Any thread; never blocks."""
        if self._thread is None or self._stop.is_set():
            return
        self._queue.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def wake(self) -> None:
        """See that what was appended is looked at soon: within 50 ms, not 100. Any thread; never blocks."""
        if not self._wake.is_set():
            self._wake.set()

    def wait_for_room(self, timeout_s: float = 1.0) -> bool:
        """Wait while the pump is congested, at most ``timeout_s``; tell whether there is room."""
        if not self.congested:
            return True
        self._room.wait(timeout_s)
        return not self.congested

    def backlog(self) -> int:
        """Return how many events wait at most for one sink."""
        return len(self._queue) + max((lane.backlog for lane in self._lanes), default=0)

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
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            for lane in self._lanes:
                lane.finish(deadline)
        self.wants = EventKind.NONE
        lost = sum(lane.join(deadline) for lane in self._lanes)
        self.congested = False
        self._room.set()
        return lost + (len(self._queue) if self._lanes else 0)

    # -- the pump's thread

    def _run(self) -> None:
        rushed = -_CALM_S
        while True:
            stopping = self._stop.is_set()
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

    def _chunk(self) -> list[tuple[object, ...] | Event]:
        """Take up to _CHUNK items; only this thread takes, so that the length can only grow meanwhile."""
        return [self._queue.popleft() for _ in range(min(_CHUNK, len(self._queue)))]

    def _hand_over(self, chunk: Sequence[tuple[object, ...] | Event]) -> None:
        for lane in self._whole:
            lane.put(chunk)
        if not self._choosy:
            return
        batches: dict[Lane, list[Event]] = {lane: [] for lane in self._choosy}
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
                for lane in route:
                    batches[lane].append(event)
        for lane, events in batches.items():
            if events:
                lane.put(events)

    def _route(self, cls: object) -> list[Lane]:
        kind = getattr(cls, "kind", None)
        route = [lane for lane in self._choosy if isinstance(kind, EventKind) and kind in lane.wants]
        if not isinstance(kind, EventKind):
            self._logger.error("Not an event: %r; it is dropped", cls)
        self._routes[cls] = route
        return route

    def _build(self, item: tuple[object, ...] | Event) -> Event | None:
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

    # -- called by lanes

    def _disabled(self, gone: Lane, count: int, reason: str) -> None:
        self._routes.clear()
        self._update_wants()
        self.post(EventsLost(time.time_ns(), count, reason))

    def _update_wants(self) -> None:
        wants = EventKind.NONE
        for lane in self._lanes:
            wants |= lane.wants
        self.wants = wants


def _begin(sink: EventSink, run: RunInfo) -> None:
    """Start a sink. What it raises is the reason why the run cannot begin; an exit becomes such a reason, too."""
    try:
        sink.start(run)
    except BaseException as error:
        if is_a(error, Exception):
            raise
        with Calling("the run cannot begin", "event sink", sink, "start"):
            raise


def _end(sink: EventSink, logger: logging.Logger) -> None:
    try:
        sink.close(1.0)
    except BaseException as error:
        pass_signal(error)
        logger.error("Event sink %s failed to close: %s", name_of(sink), one_line(error))
