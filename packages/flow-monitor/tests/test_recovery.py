"""What workers reported in files, and a run that was killed did not read, is in the log and the database after all."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import Event, EventsLost, Sampled, TaskSubmitted, TryEnded, TryLaunched, TryStarted
from flow_core.interfaces.outcome import Place
from flow_core.interfaces.sampler import Sample
from flow_core.report_files import FIELDS, SAMPLED, STARTED
from flow_monitor.log.reader import LogReader
from flow_monitor.log.writer import LogWriter
from flow_monitor.project import recovery as module
from flow_monitor.project.rebuild import log_of, rebuild
from flow_monitor.project.recovery import recover
from flow_monitor.queries import tasks, workflows
from flow_monitor.queries.database import open_database
from flow_monitor.testing.made import write_log

logger = logging.getLogger("test")
KEYS = [TryKey(5), TryKey(6)]
EVENTS: list[Event] = [
    *(TaskSubmitted(1, task, "app", "python", "", ("pool",), ()) for task in (0, 1)),
    *(TryLaunched(2, task, 0, key, "pool") for task, key in enumerate(KEYS)),
]


def sample(key: TryKey | None, time_ns: int) -> Sample:
    return Sample(time_ns, key, 77, 1, 50.0, time_ns / 10, 0.0, 100, 0.0, 0, 0, None, 3)


def told(*samples: Sample) -> Sampled:
    return Sampled(max(one.time_ns for one in samples), "pool", "", "n", "", samples)


def report(run_dir: Path, *lines: list[object], name: str = "n-77-1-000000", more: str = "") -> Path:
    """Write a file as a worker of the executor does."""
    directory = run_dir / "pool" / "reports"
    directory.mkdir(parents=True, exist_ok=True)
    head = {"flow_reports": 1, "node": "n", "pid": 77, "sample": FIELDS}
    path = directory / f"{name}.reports"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (head, *lines)) + more)
    return path


def sampled(*samples: Sample) -> list[object]:
    return [SAMPLED, [[getattr(one, name) for name in FIELDS] for one in samples]]


def logged(run_dir: Path) -> list[Event]:
    with LogReader(log_of(run_dir)) as reader:
        portion = reader.read(100_000, final=True)
    assert portion.damaged == 0
    return portion.events


def samples_in(path: Path, run_id: str = "r") -> list[tuple[int, int]]:
    """Return task and time of each sample in a database."""
    with open_database(str(path)) as database, database.connect() as connection:
        return [(task, one.time_ns) for task in (0, 1) for one in tasks.samples(connection, run_id, task)]


def test_rebuilding_adds_what_was_not_read_and_doubles_nothing(tmp_path: Path) -> None:
    run_dir, path = tmp_path / "run", tmp_path / "m.db"
    write_log(run_dir, "r", [*EVENTS, told(sample(KEYS[0], 10), sample(None, 10))])
    first = sampled(sample(KEYS[0], 10), sample(None, 10))
    file = report(run_dir, first, [STARTED, KEYS[1], 12, 77], sampled(sample(KEYS[0], 20), sample(KEYS[1], 20)))
    half = json.dumps(sampled(sample(KEYS[1], 30)))
    file.write_text(file.read_text() + half)
    for _ in range(3):
        rebuild(run_dir, f"sqlite:///{path}")
        assert samples_in(path) == [(0, 10), (0, 20), (1, 20)]
    size = log_of(run_dir).stat().st_size
    with open_database(str(path)) as database, database.connect() as connection:
        (one,) = tasks.one(connection, "r", 1).tries
        assert (one.time_running, one.host, one.pid) == (12, "n", 77)
        assert workflows.one(connection, "r").time_last_event == 20
    file.write_text(file.read_text() + "\n")  # its worker outlived the script
    assert log_of(run_dir).stat().st_size == size
    rebuild(run_dir, f"sqlite:///{path}")
    assert samples_in(path) == [(0, 10), (0, 20), (1, 20), (1, 30)]


def test_the_last_samples_of_many_workers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SAMPLES", 7)
    write_log(tmp_path, "r", EVENTS)
    for worker in range(5):
        times = range(100 + worker, 300 + worker, 5)
        report(tmp_path, *(sampled(sample(KEYS[0], time_ns)) for time_ns in times), name=f"n-{worker}-1-000000")
    assert recover(log_of(tmp_path), logger) == 29
    events = logged(tmp_path)[len(EVENTS) :]
    found = [one.time_ns for event in events if isinstance(event, Sampled) for one in event.samples]
    assert found == list(range(100, 300))
    assert recover(log_of(tmp_path), logger) == 0
    assert len(logged(tmp_path)) == len(EVENTS) + 29


@pytest.mark.parametrize(
    "known",
    [
        TryStarted(3, 0, 0, Place("pool", node="n", pid=77)),
        TryEnded(9, 0, 0, "LOST", 0, 0, "pool", None, None, "gone"),
    ],
    ids=["started", "ended"],
)
def test_a_start_that_is_known_or_past_is_not_told_again(tmp_path: Path, known: Event) -> None:
    write_log(tmp_path, "r", [*EVENTS, known])
    report(tmp_path, [STARTED, KEYS[0], 3, 77], [STARTED, 999, 3, 77])
    size = log_of(tmp_path).stat().st_size
    assert recover(log_of(tmp_path), logger) == 0
    assert log_of(tmp_path).stat().st_size == size


def test_what_is_damaged_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_log(tmp_path, "r", EVENTS)
    with open(path, "ab") as stream:
        stream.write(b"\xf5EV1\x99")  # the frame that was being written when the script was killed
    report(tmp_path, sampled(sample(KEYS[0], 10)), ["sampled", [[1]]], sampled(sample(KEYS[0], 20)))
    report(tmp_path, name="n-78-1-000000", more="\xff\n")
    (tmp_path / "pool" / "reports" / "n-79-1-000000.reports").touch()
    (tmp_path / "pool" / "reports" / "n-80-1-000000.reports").mkdir()
    assert recover(path, logger) == 1
    assert logged(tmp_path)[-1] == told(sample(KEYS[0], 10), sample(KEYS[0], 20))
    assert "2 lines" in caplog.text
    assert "n-80" in caplog.text


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    opened = LogWriter(log_of(tmp_path), "r", 1)
    opened.append(EVENTS)
    yield opened
    opened.close()


def test_nothing_is_read_while_the_run_goes_on(
    tmp_path: Path, writer: LogWriter, caplog: pytest.LogCaptureFixture
) -> None:
    report(tmp_path, sampled(sample(KEYS[0], 10)))
    rebuild(tmp_path, f"sqlite:///{tmp_path / 'm.db'}")
    assert samples_in(tmp_path / "m.db") == []
    assert "written by another process" in caplog.text
    writer.close()
    rebuild(tmp_path, f"sqlite:///{tmp_path / 'm.db'}")
    assert samples_in(tmp_path / "m.db") == [(0, 10)]


def test_a_file_system_without_locks_does_not_tell_whether_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path, "r", EVENTS)
    report(tmp_path, sampled(sample(KEYS[0], 10)))
    monkeypatch.setattr(LogWriter, "_lock", lambda _self: None)
    assert recover(log_of(tmp_path), logger) == 0
    assert "cannot be locked" in caplog.text
    assert logged(tmp_path) == EVENTS


def test_a_log_that_cannot_be_written_is_rebuilt_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path, "r", EVENTS)
    report(tmp_path, sampled(sample(KEYS[0], 10)))
    original = os.open

    def refuse(path: str, flags: int, *args: int) -> int:
        if flags & os.O_RDWR and str(path).endswith("events.log"):
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert recover(log_of(tmp_path), logger) == 0
    assert "is left out" in caplog.text
    assert not any(isinstance(event, EventsLost) for event in logged(tmp_path))


def test_a_forked_child_does_not_keep_the_log_locked(tmp_path: Path, writer: LogWriter) -> None:
    reading, writing = os.pipe()
    up, say_up = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(writing)
            os.write(say_up, b"x")
            os.read(reading, 1)  # until the parent closes its end
        finally:
            os._exit(0)
    try:
        os.read(up, 1)
        with pytest.raises(module.LogError, match="written by another process"):
            LogWriter(log_of(tmp_path), "r", 1)
        writer.close()
        LogWriter(log_of(tmp_path), "r", 1).close()
    finally:
        for fd in (reading, writing, up, say_up):
            os.close(fd)
        os.waitpid(pid, 0)
