"""The event pump: every sink gets what it wants, in order; a bad sink harms nobody but itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flow_core.interfaces.events import Event, EventKind, EventsLost, TaskChanged, TaskEnded, TryLaunched
from flow_core.interfaces.sinks import EventSink, RunInfo
from flow_core.observe.pump import EventPump
from flow_core.testing.contracts import SinkContract

_TIMEOUT_S = 30.0
_LOGGER = logging.getLogger("flow.test.pump")


class ListSink:
    """Keeps events; can be made to block or to raise."""

    def __init__(self, wants: EventKind = EventKind.ALL) -> None:
        self.wants = wants
        self.events: list[Event] = []
        self.run: RunInfo | None = None
        self.closed = 0
        self.left = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()
        self._changed = threading.Condition()

    def start(self, run: RunInfo) -> None:
        self.run = run

    def emit(self, events: Sequence[Event]) -> None:
        self.threads.add(threading.get_ident())
        self.gate.wait(_TIMEOUT_S)
        if self.error is not None:
            raise self.error
        with self._changed:
            self.events.extend(events)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> int:
        self.closed += 1
        return self.left

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, _TIMEOUT_S)


class TestListSink(SinkContract):
    def make_sink(self, directory: Path) -> EventSink:
        return ListSink()


def changed(number: int) -> TaskChanged:
    return TaskChanged(number, number, "pending")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., EventPump]]:
    pumps: list[EventPump] = []

    def start(*sinks: ListSink, **limits: int) -> EventPump:
        pump = EventPump(sinks, RunInfo("run", 0, tmp_path, "test", 0), _LOGGER, **limits)
        pumps.append(pump)
        pump.start()
        return pump

    yield start
    for pump in pumps:
        pump.close(5.0)


def test_tuples_become_events_in_order(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)
    for number in range(10_000):
        pump.append((TaskChanged, number, number, "pending"))
    assert pump.close() == 0
    assert sink.events == [changed(number) for number in range(10_000)]
    assert sink.closed == 1


def test_tuples_and_events_keep_their_order(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)
    pump.append((TaskChanged, 1, 1, "pending"))
    pump.post(changed(2))
    pump.append((TaskChanged, 3, 3, "pending"))
    pump.close()
    assert sink.events == [changed(1), changed(2), changed(3)]


def test_what_is_posted_arrives_without_a_close(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)
    pump.post(changed(1))
    sink.wait(lambda: sink.events == [changed(1)])
    pump.append((TaskChanged, 2, 2, "pending"))
    sink.wait(lambda: sink.events == [changed(1), changed(2)])


def test_each_sink_gets_the_kinds_it_wants(make: Callable[..., EventPump]) -> None:
    tasks, tries = ListSink(EventKind.TASK), ListSink(EventKind.TRY | EventKind.STATE)
    pump = make(tasks, tries)
    assert pump.wants == EventKind.TASK | EventKind.TRY | EventKind.STATE
    pump.append((TaskEnded, 1, 1, "exec_done"))
    pump.append((TryLaunched, 2, 1, 0, 1, "threads"))
    pump.append((TaskChanged, 3, 1, "pending"))
    pump.close()
    assert tasks.events == [TaskEnded(1, 1, "exec_done")]
    assert tries.events == [TryLaunched(2, 1, 0, 1, "threads"), changed(3).__class__(3, 1, "pending")]


def test_events_that_nobody_wants_are_never_built(make: Callable[..., EventPump]) -> None:
    pump = make(ListSink(EventKind.TASK))
    pump.append((TaskChanged, "too", "many", "fields", "for", "this", "class"))
    assert pump.close() == 0


def test_without_sinks_there_is_no_thread(make: Callable[..., EventPump]) -> None:
    before = threading.active_count()
    pump = make()
    assert threading.active_count() == before
    assert pump.wants == EventKind.NONE
    pump.post(changed(1))
    assert pump.close() == 0


def test_a_sink_is_called_by_one_thread_and_told_of_the_run(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)
    for number in range(3):
        pump.post(changed(number))
        sink.wait(lambda seen=number: len(sink.events) > seen)  # type: ignore[misc]  # bound at once
    pump.close()
    assert len(sink.threads) == 1
    assert threading.get_ident() not in sink.threads
    assert sink.run is not None
    assert sink.run.run_id == "run"


def test_a_sink_that_raises_is_disabled_told_of_once_and_leaves_a_gap(
    make: Callable[..., EventPump], caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = ListSink(), ListSink()
    bad.error = RuntimeError("database gone")
    pump = make(good, bad)
    with caplog.at_level(logging.ERROR, _LOGGER.name):
        for number in range(3):
            pump.post(changed(number))
            good.wait(lambda seen=number: changed(seen) in good.events)  # type: ignore[misc]  # bound at once
        good.wait(lambda: any(isinstance(event, EventsLost) for event in good.events))
        assert pump.close() >= 1
    assert len([record for record in caplog.records if "disabled" in record.message]) == 1
    gap = next(event for event in good.events if isinstance(event, EventsLost))
    assert gap.count >= 1
    assert "database gone" in gap.reason
    assert bad.closed == 1


def test_what_only_a_disabled_sink_wanted_is_wanted_no_more(make: Callable[..., EventPump]) -> None:
    good, bad = ListSink(EventKind.TASK | EventKind.LOG), ListSink(EventKind.STATE)
    bad.error = RuntimeError("no")
    pump = make(good, bad)
    pump.post(changed(1))
    good.wait(lambda: bool(good.events))
    assert pump.wants == EventKind.TASK | EventKind.LOG


def test_a_slow_sink_does_not_delay_another(make: Callable[..., EventPump]) -> None:
    quick, slow = ListSink(), ListSink()
    slow.gate.clear()
    pump = make(quick, slow)
    for number in range(100):
        pump.post(changed(number))
    quick.wait(lambda: len(quick.events) == 100)
    assert slow.events == []
    slow.gate.set()
    assert pump.close() == 0
    assert len(slow.events) == 100


def test_what_finds_no_room_is_counted_and_told_to_the_sink_when_it_is_back(
    make: Callable[..., EventPump], caplog: pytest.LogCaptureFixture
) -> None:
    slow, quick = ListSink(), ListSink()
    slow.gate.clear()
    pump = make(slow, quick, hard_limit=10)
    pump.post(changed(0))
    quick.wait(lambda: len(quick.events) == 1)
    with caplog.at_level(logging.WARNING, _LOGGER.name):
        for number in range(1, 26):
            pump.post(changed(number))
            quick.wait(lambda seen=number: len(quick.events) > seen)  # type: ignore[misc]  # bound at once
    slow.gate.set()
    slow.wait(lambda: any(isinstance(event, EventsLost) for event in slow.events))
    lost = pump.close()
    gaps = [event for event in slow.events if isinstance(event, EventsLost)]
    assert sum(gap.count for gap in gaps) == lost == 26 - (len(slow.events) - len(gaps))
    assert len([record for record in caplog.records if "too slow" in record.message]) == 1


def test_a_pump_that_is_behind_says_so_and_lets_submitters_wait(make: Callable[..., EventPump]) -> None:
    slow = ListSink()
    slow.gate.clear()
    pump = make(slow, soft_limit=10)
    assert pump.wait_for_room(0.0)
    for number in range(100):
        pump.append((TaskChanged, number, number, "pending"))
    pump.wake()
    for _ in range(3000):
        if pump.congested:
            break
        threading.Event().wait(0.01)
    assert not pump.wait_for_room(0.01)
    slow.gate.set()
    assert pump.wait_for_room(_TIMEOUT_S)


def test_close_is_bounded_when_a_sink_hangs_and_counts_what_is_left(make: Callable[..., EventPump]) -> None:
    stuck = ListSink()
    stuck.gate.clear()
    pump = make(stuck)
    for number in range(5):
        pump.post(changed(number))
    assert pump.close(0.2) == 5
    assert pump.close(0.2) == 5
    stuck.gate.set()


def test_what_a_sink_could_not_write_is_counted(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    sink.left = 7
    assert make(sink).close() == 7


def test_a_sink_that_cannot_start_fails_the_start_and_closes_the_others(tmp_path: Path) -> None:
    class Broken(ListSink):
        def start(self, run: RunInfo) -> None:
            raise OSError("no such database")

    good = ListSink()
    pump = EventPump([good, Broken()], RunInfo("run", 0, tmp_path, "test", 0), _LOGGER)
    with pytest.raises(OSError, match="no such database"):
        pump.start()
    assert good.closed == 1
    assert pump.close() == 0


def test_many_threads_may_post(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)

    def work() -> None:
        for number in range(500):
            pump.post(changed(number))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT_S)
    assert pump.close() == 0
    assert len(sink.events) == 2000


def test_nothing_is_taken_after_the_close(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)
    pump.close()
    pump.post(changed(1))
    assert sink.events == []
    assert pump.wants == EventKind.NONE


def test_something_that_is_no_event_harms_nobody(make: Callable[..., EventPump]) -> None:
    sink = ListSink()
    pump = make(sink)
    pump.append(("nonsense", 1))
    pump.append((TaskChanged, "too", "few"))
    pump.append((TaskChanged, 1, 1, "pending"))
    pump.close()
    assert sink.events == [changed(1)]


class RecordingSink(ListSink):
    """Takes records as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[object] = []

    def emit_records(self, records: Sequence[tuple[object, ...] | Event]) -> None:
        with self._changed:
            self.records.extend(records)
            self._changed.notify_all()


def test_a_sink_of_records_gets_what_was_appended_as_it_is(tmp_path: Path) -> None:
    taker, other = RecordingSink(), ListSink(EventKind.TASK)
    pump = EventPump([taker, other], RunInfo("r", 1, tmp_path, "n", 1), _LOGGER)
    pump.start()
    given = [(TryLaunched, 1, 2, 0, 3, "x"), (TaskEnded, 4, 2, "exec_done")]
    for record in given:
        pump.append(record)
    pump.post(TaskChanged(5, 2, "pending"))
    assert pump.close(_TIMEOUT_S) == 0
    assert taker.records == [*given, TaskChanged(5, 2, "pending")]
    assert other.events == [TaskEnded(4, 2, "exec_done")]
    assert taker.events == []


def test_in_a_rush_the_pump_waits_but_no_longer_than_it_may(tmp_path: Path) -> None:
    sink = ListSink()
    pump = EventPump([sink], RunInfo("r", 1, tmp_path, "n", 1), _LOGGER, soft_limit=5000)
    pump.start()
    for number in range(20_000):
        pump.append((TaskChanged, number, 1, "pending"))
    sink.wait(lambda: len(sink.events) == 20_000)
    assert pump.close(_TIMEOUT_S) == 0
