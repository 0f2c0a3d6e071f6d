"""The event log keeps what was written, whatever happens to its bytes."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import Event, EventsLost, Sampled, TaskChanged, TaskEnded, TaskSubmitted, TryEnded
from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample
from flow_monitor.errors import LogError
from flow_monitor.log import keeper as keeper_module, writer as writer_module
from flow_monitor.log.frames import pack
from flow_monitor.log.keeper import LogKeeper
from flow_monitor.log.reader import LogReader, Position
from flow_monitor.log.records import CODES, event_of, header_json, read_header, records_json, row_of
from flow_monitor.log.writer import LogWriter
from flow_monitor.testing.synthetic import SyntheticRun

EVENTS = list(SyntheticRun(tasks=20, samples=3).events())


def read_all(path: Path, *, final: bool = True) -> tuple[list[Event], int]:
    events: list[Event] = []
    damaged = 0
    with LogReader(path) as reader:
        while True:
            portion = reader.read(50, final=final)
            damaged += portion.damaged
            if not portion.events:
                return events, damaged
            events += portion.events


def written(path: Path, events: list[Event]) -> Path:
    writer = LogWriter(path, "r", 1)
    writer.append(events)
    assert writer.close() == 0
    return path


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    events, damaged = read_all(written(tmp_path / "log", EVENTS))
    assert events == EVENTS
    assert damaged == 0


def test_nested_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    place = Place("htex", "0", "node", "m", 3, 99)
    sample = Sample(5, TryKey(7), 99, 2, 50.0, 1.0, 0.5, 1 << 30, 2.5, 1, 2, 3, 4)
    events: list[Event] = [
        TryEnded(1, 2, 0, "OK", 1, 2, "htex", place, Usage(1.5, 0.5, 100, 1, 2), ""),
        TryEnded(1, 3, 0, "LOST", 0, 0, "htex", None, None, "gone"),
        Sampled(6, "htex", "0", "node", "m", (sample,)),
    ]
    assert read_all(written(tmp_path / "log", events))[0] == events


def test_text_that_databases_refuse_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [TaskChanged(1, 2, "a\x00b\udc80c \u2603 \U0001f600")])
    assert read_all(path)[0] == [TaskChanged(1, 2, "a\ufffdb\ufffdc \u2603 \U0001f600")]


@pytest.mark.parametrize("error", ["", "no Unicode: \udc80"])
def test_a_cost_without_end_stays_one(tmp_path: Path, error: str) -> None:
    event = TaskEnded(1, 2, "failed", fail_cost=float("inf"), error=error)
    ((read,), damaged) = read_all(written(tmp_path / "log", [event]))
    assert isinstance(read, TaskEnded)
    assert (read.fail_cost, damaged) == (float("inf"), 0)


def test_a_log_of_before_with_numbers_that_json_has_not_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [])
    row = [CODES[TaskEnded], 1, 2, "failed", "", False, 1, 1, float("inf"), "", ""]
    with path.open("ab") as file:
        file.write(pack(json.dumps([[], [row]]).encode()))
    assert read_all(path) == ([TaskEnded(1, 2, "failed", tries=1, fail_count=1, fail_cost=float("inf"))], 0)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = written(tmp_path / "log", EVENTS)
    with LogReader(path) as reader:
        first = reader.read(10)
    with LogReader(path, first.position) as reader:
        assert first.events + reader.read(100_000).events == EVENTS


def test_a_position_of_another_log_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log", EVENTS)
    with pytest.raises(LogError, match="no header at byte 3"):
        LogReader(path, Position(100, 3))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_log_cut_anywhere_gives_a_beginning_of_it_and_can_be_continued(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    written(path, EVENTS[:40])
    writer = LogWriter(path, "r", 2)
    for event in EVENTS[40:80]:
        writer.append([event])
    writer.close()
    os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
    if path.stat().st_size:
        before, _ = read_all(path, final=False)
        assert before == EVENTS[: len(before)]
    else:
        before = []
    written(path, EVENTS[:1])
    assert read_all(path) == ([*before, EVENTS[0]], 0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_changed_byte_costs_at_most_the_frame_it_is_in(tmp_path: Path, at: float, byte: int) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    writer = LogWriter(path, "r", 1)
    header = path.stat().st_size
    for event in EVENTS[:60]:
        writer.append([event])
    writer.close()
    bytes_ = bytearray(path.read_bytes())
    bytes_[header + int(at * (len(bytes_) - header - 1))] = byte
    path.write_bytes(bytes_)
    events, _ = read_all(path)
    assert len(events) >= 59
    assert all(event in EVENTS for event in events)


def test_a_log_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"hello, I am no event log" * 10)
    with pytest.raises(LogError, match="is not an event log of Flow"):
        read_all(path)


def test_a_log_of_a_newer_version_says_what_to_do() -> None:
    head = json.loads(header_json("r", 1))
    head["flow_events"] = 99
    with pytest.raises(LogError, match="upgrade flow-monitor"):
        read_header(json.dumps(head).encode())


def test_fields_and_kinds_of_another_version_are_read_by_name() -> None:
    head = json.loads(header_json("r", 1))
    names = dict(head["events"])
    head["events"] = [
        ["TaskFrobnicated", ["time_ns", "how"]],
        ["TaskChanged", ["state", "colour", "time_ns", "task_id"]],
        ["TaskSubmitted", [n for n in names["TaskSubmitted"] if n not in ("label", "cache", "items")]],
    ]
    decode = read_header(json.dumps(head).encode()).decode
    rows = [[0, 1, "oddly"], [1, "failed", "red", 5, 6], [2, 1, 2, "app", "python", ["x"], [], [], [], "", "", None]]
    assert [event_of(row) for row in decode(json.dumps([[], rows]).encode())] == [
        TaskChanged(5, 6, "failed"),
        TaskSubmitted(1, 2, "app", "python", "", ("x",), ()),
    ]


def test_two_writers_of_one_log_are_refused(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log", "r", 1)
    with pytest.raises(LogError, match="its own run_dir"):
        LogWriter(tmp_path / "log", "r", 1)
    writer.close()


class Disk:
    """Has room for some bytes more, as long as it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(writer_module, "_TRY_AGAIN_S", 0.0)

    def write(self, fd: int, data: memoryview) -> int:
        if self.room is None:
            return self._write(fd, data)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part, self.room = self.room, 0
        return self._write(fd, data[:part])


@pytest.mark.parametrize("what", ["make_directory", "open_own_to_write", "write"])
def test_a_log_without_room_at_the_begin_names_its_place_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "write":
        monkeypatch.setattr(os, "write", full)
    else:
        monkeypatch.setattr(f"flow_monitor.log.writer.{what}", full)
    path = tmp_path / "monitoring" / "events.log"
    with pytest.raises(LogError) as told:
        LogWriter(path, "run", 1)
    monkeypatch.undo()
    reason = "No space left on device. Free space there (also inodes: df -i), or name another place with run_dir="
    assert str(told.value).endswith(f"the event log {path}: {reason}")


def test_what_a_full_disk_had_no_room_for_is_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, writer = Disk(monkeypatch), LogWriter(tmp_path / "log", "r", 1)
    writer.append(EVENTS[:3])
    disk.room = 7
    writer.append(EVENTS[3:5])
    writer.append(EVENTS[5:8])
    assert (writer.waiting, writer.failure) == (5, "No space left on device")
    assert read_all(tmp_path / "log", final=False)[0] == EVENTS[:3]
    disk.room = None
    writer.append(EVENTS[8:9])
    assert (writer.waiting, writer.failure) == (0, "")
    assert writer.close() == 0
    assert read_all(tmp_path / "log") == (EVENTS[:9], 0)


def test_the_end_of_a_run_waits_a_while_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = Disk(monkeypatch), LogWriter(tmp_path / "log", "r", 1)
    disk.room = 0
    writer.append(EVENTS[:5])
    monkeypatch.setattr(time, "sleep", lambda _: setattr(disk, "room", None))
    assert writer.close(patience_s=10.0) == 0
    assert read_all(tmp_path / "log") == (EVENTS[:5], 0)


def test_events_that_no_memory_is_left_for_are_counted_with_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, writer = Disk(monkeypatch), LogWriter(tmp_path / "log", "r", 1)
    monkeypatch.setattr(writer_module, "KEPT_BYTES", len(pack(records_json(EVENTS[:5]))) + 1)
    disk.room = 0
    before = time.time_ns()
    writer.append(EVENTS[:5])
    for event in EVENTS[5:15]:
        writer.append([event])
    disk.room = None
    writer.append(EVENTS[15:16])
    assert (writer.close(), writer.lost_why) == (10, "the event log could not be written: No space left on device")
    events, damaged = read_all(tmp_path / "log")
    assert ([*events[:5], *events[6:]], damaged) == ([*EVENTS[:5], EVENTS[15]], 0)
    gap = events[5]
    assert isinstance(gap, EventsLost)
    assert (gap.count, gap.reason) == (10, writer.lost_why)
    assert before <= gap.since_ns <= gap.time_ns <= time.time_ns()


def test_what_never_found_room_is_counted_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = Disk(monkeypatch), LogWriter(tmp_path / "log", "r", 1)
    disk.room = 0
    writer.append(EVENTS[:5])
    assert writer.close() == 5
    assert (writer.lost, writer.waiting, read_all(tmp_path / "log")) == (5, 0, ([], 0))
    assert 0 < writer.lost_from_ns <= writer.lost_until_ns


def test_a_keeper_writes_what_waits_though_no_new_events_come_and_says_each_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "_TRY_AGAIN_S", 0.01)
    disk, writer = Disk(monkeypatch), LogWriter(tmp_path / "log", "r", 1)
    keeper = LogKeeper(writer, logging.getLogger("flow.monitor"))
    disk.room = 0
    for event in EVENTS[:20]:
        keeper.append([event])
    (said,) = caplog.messages
    assert str(tmp_path / "log") in said
    assert "No space left on device" in said
    disk.room = None
    until = time.monotonic() + 40
    while writer.waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert read_all(tmp_path / "log", final=False)[0] == EVENTS[:20]
    assert keeper.close(1.0) == 0
    assert len(caplog.messages) == 2
    assert "are written to" in caplog.messages[1]


def test_a_keeper_says_how_many_events_were_lost_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk, writer = Disk(monkeypatch), LogWriter(tmp_path / "log", "r", 1)
    keeper = LogKeeper(writer, logging.getLogger("flow.monitor"))
    disk.room = 0
    keeper.append(EVENTS[:20])
    assert keeper.close(0.0) == 20
    assert len(caplog.messages) == 2
    assert "20 events between 20" in caplog.messages[1]
    assert " UTC are lost" in caplog.messages[1]


def test_an_event_that_cannot_be_encoded_costs_only_itself(tmp_path: Path) -> None:
    class NotAnEvent:
        pass

    writer = LogWriter(tmp_path / "log", "r", 1)
    writer.append([EVENTS[0], NotAnEvent(), EVENTS[1]])  # type: ignore[list-item] # that is the point
    assert writer.close() == 1
    events, _ = read_all(tmp_path / "log")
    assert [e for e in events if not isinstance(e, EventsLost)] == EVENTS[:2]


def test_a_reader_waits_for_the_rest_of_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head, frame = pack(header_json("r", 1)), pack(records_json(EVENTS[:3]))
    path.write_bytes(head + frame[:-2])
    with LogReader(path) as reader:
        assert reader.read().events == []
        with path.open("ab") as more:
            more.write(frame[-2:])
        assert reader.read().events == EVENTS[:3]


def test_records_of_the_kernel_are_read_as_the_events_they_stand_for(tmp_path: Path) -> None:
    records = [(type(e), *(getattr(e, f.name) for f in dataclasses.fields(e))) for e in EVENTS]
    writer = LogWriter(tmp_path / "log", "r", 1)
    writer.append(records)
    assert writer.close() == 0
    assert read_all(tmp_path / "log") == (EVENTS, 0)


def test_an_event_as_a_row_is_that_event() -> None:
    assert [event_of(row_of(event)) for event in EVENTS] == EVENTS
