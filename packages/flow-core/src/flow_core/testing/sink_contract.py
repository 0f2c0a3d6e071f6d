"""Contract of event sinks as tests: subclass SinkContract in a test module and give it ``make_sink``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.interfaces import events as ev
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample
from flow_core.interfaces.sinks import EventSink, RunInfo

_T0 = 1_700_000_000_000_000_000  # ns UTC, in November 2023; times of events count from here
_PLACE = Place("htex", "block-0", "node-1", "manager-1", 0, 4242)


def one_run(tasks: int = 3) -> list[ev.Event]:
    """Return the events of a small run: every class of event, in an order that can happen."""
    made: list[ev.Event] = [
        ev.RunStarted(_T0, "run-1", 0, "demo", "demo.py", "0.1.0", "3.11.2", "host", "user", "/runs/000", ("htex",)),
        ev.BlockChanged(_T0 + 1, "htex", "block-0", "job-17", "RUNNING", ""),
        ev.NodeJoined(_T0 + 2, "htex", "block-0", "node-1", "manager-1", 4000, 2, 8, 1 << 34, "3.11.2"),
    ]
    for number in range(tasks):
        # Ten nanoseconds apart: the events of a task take five, so those of two tasks never mix.
        made += _one_task(number, _T0 + 10 + 10 * number)
    sample = Sample(_T0 + 900, TryKey(1), 4242, 1, 50.0, 0.5, 0.1, 1 << 20, 0.5, 0, 0)
    made += [
        ev.TaskJoined(_T0 + 899, 0, (1, 2)),
        ev.FileMoving(_T0 + 900, 0, "http://host/data", "in", 5, 10, 2.5),
        ev.FileStaged(_T0 + 901, 0, "http://host/data", "/tmp/data", "in", 10, "ab", ""),
        ev.Sampled(_T0 + 902, "htex", "block-0", "node-1", "manager-1", (sample,)),
        ev.EventsLost(_T0 + 903, 2, "for the test"),
        ev.NodeHeld(_T0 + 904, "htex", "node-1", "its last 10 tasks failed"),
        ev.NodeLeft(_T0 + 904, "htex", "block-0", "manager-1", "drained", False),
        ev.RunEnded(_T0 + 1000, "run-1", tasks, 0, 0, 0),
    ]
    return made


def _one_task(number: int, at: int) -> list[ev.Event]:
    key = number + 1
    depends = (number - 1,) if number else ()
    return [
        ev.TaskSubmitted(at, number, "double", "python", "", ("htex",), depends, ("a.txt",), ("b.txt",)),
        ev.TaskChanged(at + 1, number, "launched"),
        ev.TryLaunched(at + 1, number, 0, key, "htex"),
        ev.TryStarted(at + 2, number, 0, _PLACE),
        ev.TryEnded(at + 3, number, 0, "OK", at + 2, at + 3, "htex", _PLACE, Usage(0.1, 0.0, 1024), ""),
        ev.TaskEnded(at + 4, number, "exec_done", "00ff", False, 1),
    ]


class SinkContract:
    """Subclass in a test module and implement ``make_sink``. Sinks are called as the pump calls them: by one thread."""

    def make_sink(self, directory: Path) -> EventSink:
        """Return a new sink, not started, that keeps its files in the directory."""
        raise NotImplementedError

    @pytest.fixture
    def run_info(self, tmp_path: Path) -> RunInfo:
        """Give the run that the sink starts with."""
        return RunInfo("run-1", 0, tmp_path, "demo", _T0)

    @pytest.fixture
    def sink(self, tmp_path: Path, run_info: RunInfo) -> Iterator[EventSink]:
        """Give a started sink and close it."""
        sink = self.make_sink(tmp_path)
        sink.start(run_info)
        yield sink
        sink.close(10.0)

    def _wanted(self, sink: EventSink, events: list[ev.Event]) -> list[ev.Event]:
        return [event for event in events if event.kind in sink.wants]

    def test_it_says_what_it_wants(self, sink: EventSink) -> None:
        """``wants`` is a union of kinds once the sink has started."""
        assert isinstance(sink.wants, ev.EventKind)

    def test_a_whole_run_is_taken_and_all_of_it_is_durable(self, sink: EventSink) -> None:
        """Every kind of event is taken, and ``close`` reports that none is left."""
        sink.emit(self._wanted(sink, one_run()))
        assert sink.close(10.0) == 0

    def test_events_may_come_one_by_one(self, sink: EventSink) -> None:
        """Nothing depends on how events are batched."""
        for event in self._wanted(sink, one_run()):
            sink.emit([event])
        assert sink.close(10.0) == 0

    def test_an_empty_batch_is_nothing(self, sink: EventSink) -> None:
        """It is taken and changes nothing."""
        sink.emit([])
        assert sink.close(10.0) == 0

    def test_closing_twice_is_closing_once(self, sink: EventSink) -> None:
        """The second ``close`` returns 0 as well."""
        sink.emit(self._wanted(sink, one_run()))
        assert (sink.close(10.0), sink.close(10.0)) == (0, 0)

    def test_a_run_without_events_is_a_run(self, sink: EventSink) -> None:
        """A run may end before anything happened."""
        assert sink.close(10.0) == 0

    def test_a_task_may_end_without_having_been_seen_before(self, sink: EventSink) -> None:
        """An end without the events before it, which may be lost, is taken."""
        # Events before it may have been lost where a disk was full.
        sink.emit(self._wanted(sink, [ev.TaskEnded(_T0, 77, "failed", error="ValueError: no")]))
        assert sink.close(10.0) == 0
