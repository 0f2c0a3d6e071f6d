"""Checkpoint files: what is written is read, whatever happens to the end of the file."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flow_core.checkpoint.compact import compact, list_checkpoints, verify
from flow_core.checkpoint.find import get_all_checkpoints, get_last_checkpoint
from flow_core.checkpoint.log import CheckpointLog
from flow_core.checkpoint.reader import CheckpointReader, read_value, readable_end
from flow_core.checkpoint.record import FILE_HEADER_BYTES, PYTHON, Meta, pack
from flow_core.errors import BadCheckpoint


def meta(number: int, *, app: str = "app", written_ns: int | None = None) -> Meta:
    digest = number.to_bytes(16, "little")
    when = 1000 + number if written_ns is None else written_ns
    return Meta(digest, None, number, 1, 2, when, PYTHON, app, (("code", b"12345678"), ("argument 'x'", digest[:8])))


def record(number: int, value: object = None, **more: object) -> bytes:
    return pack(meta(number, **more), pickle.dumps(value))  # type: ignore[arg-type]  # options of meta


def write(directory: Path, *records: bytes) -> Path:
    log = CheckpointLog(directory)
    log.append(records)
    log.close()
    return log.path


def numbers(path: Path) -> list[int]:
    return [each.meta.task_id for each in CheckpointReader(path)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, record(1, "one"), record(2, ["two"]))
    found = list(CheckpointReader(path))
    assert [each.meta for each in found] == [meta(1), meta(2)]
    assert [read_value(path, each.offset, each.meta.digest) for each in found] == ["one", ["two"]]


def test_appending_goes_on_where_a_file_ends(tmp_path: Path) -> None:
    write(tmp_path, record(1))
    assert numbers(write(tmp_path, record(2), record(3))) == [1, 2, 3]


def test_a_file_cut_at_any_byte_gives_every_record_before_the_cut(tmp_path: Path) -> None:
    records = [record(number, "x" * (7 * number)) for number in range(4)]
    whole = write(tmp_path / "whole", *records).read_bytes()
    ends = [FILE_HEADER_BYTES]
    for each in records:
        ends.append(ends[-1] + len(each))
    cut = tmp_path / "tasks.log"
    for size in range(len(whole) + 1):
        cut.write_bytes(whole[:size])
        reader = CheckpointReader(cut)
        assert len(list(reader)) == max(0, sum(end <= size for end in ends) - 1)
        assert bool(reader.damages) == (size not in ends and size > 0)


def test_appending_cuts_a_torn_tail_at_any_byte(tmp_path: Path) -> None:
    records = [record(1), record(2)]
    whole = write(tmp_path / "whole", *records).read_bytes()
    for size in range(len(whole) + 1):
        directory = tmp_path / str(size)
        directory.mkdir()
        (directory / "tasks.log").write_bytes(whole[:size])
        before = numbers(directory / "tasks.log")
        path = write(directory, record(9))
        reader = CheckpointReader(path)
        assert [each.meta.task_id for each in reader] == [*before, 9]
        assert reader.damages == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(FILE_HEADER_BYTES, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_its_record_and_never_gives_a_wrong_one(tmp_path: Path, at: int, bit: int) -> None:
    path = tmp_path / "tasks.log"
    path.unlink(missing_ok=True)
    write(tmp_path, *(record(number, "x" * 20) for number in range(5)))
    data = bytearray(path.read_bytes())
    at = FILE_HEADER_BYTES + at % (len(data) - FILE_HEADER_BYTES)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    reader = CheckpointReader(path)
    found = [(each.meta, read_value(path, each.offset, each.meta.digest)) for each in reader]
    assert reader.damages
    for each, value in found:
        assert each == meta(each.task_id)
        assert value == "x" * 20


def test_a_damaged_body_is_stepped_over(tmp_path: Path) -> None:
    path = write(tmp_path, record(1), record(2), record(3))
    data = bytearray(path.read_bytes())
    data[FILE_HEADER_BYTES + len(record(1)) + len(record(2)) - 1] ^= 1
    path.write_bytes(data)
    reader = CheckpointReader(path)
    assert [each.meta.task_id for each in reader] == [1, 3]
    assert [damage.tail for damage in reader.damages] == [False]


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tasks.log"
    for data in (b"hello world, this is no checkpoint", b"GIF", bytes(100)):
        path.write_bytes(data)
        with pytest.raises(BadCheckpoint, match=r"tasks\.log is not a checkpoint"):
            list(CheckpointReader(path))


def test_a_checkpoint_of_a_newer_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_core.checkpoint.record.VERSION", 9)
    path = write(tmp_path, record(1))
    monkeypatch.undo()
    with pytest.raises(BadCheckpoint, match="of version 9; this Flow reads version 1"):
        list(CheckpointReader(path))


def test_a_value_that_was_replaced_or_damaged_is_not_given(tmp_path: Path) -> None:
    path = write(tmp_path, record(1, "one"))
    found = next(iter(CheckpointReader(path)))
    with pytest.raises(BadCheckpoint, match="replaced"):
        read_value(path, found.offset, b"another key 1234")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match="damaged"):
        read_value(path, found.offset, found.meta.digest)
    path.unlink()
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        read_value(path, found.offset, found.meta.digest)


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    log = CheckpointLog(tmp_path)
    log.append([record(1)])
    with pytest.raises(BadCheckpoint, match="being written by another run"):
        CheckpointLog(tmp_path).append([record(2)])
    log.close()
    assert numbers(write(tmp_path, record(2))) == [1, 2]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CheckpointLog(tmp_path)
    log.append([record(1)])
    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        log.append([record(2)])
    monkeypatch.undo()
    log.append([record(3)])
    log.close()
    assert numbers(log.path) == [1, 3]


def test_threads_may_append_and_sync_at_once(tmp_path: Path) -> None:
    log = CheckpointLog(tmp_path)

    def work(first: int) -> None:
        for number in range(first, first + 20):
            log.append([record(number)])
            if number % 5 == 0:
                log.sync()

    threads = [threading.Thread(target=work, args=(first,), daemon=True) for first in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    log.close()
    assert sorted(numbers(log.path)) == list(range(60))


# -- finding, verifying, compacting


def runs(rundir: Path, *names: str) -> list[str]:
    return [str(write(rundir / name / "checkpoint", record(1)).parent) for name in names]


def test_checkpoints_are_found_by_the_number_of_their_run(tmp_path: Path) -> None:
    made = runs(tmp_path, "010", "002", "1000", "000")
    (tmp_path / "003" / "checkpoint").mkdir(parents=True)
    write(tmp_path / "2000" / "checkpoint")
    (tmp_path / "jobs.ledger").touch()
    assert get_all_checkpoints(tmp_path) == [made[3], made[1], made[0], made[2]]
    assert get_last_checkpoint(tmp_path) == [made[2]]


def test_where_nothing_ran_there_are_no_checkpoints(tmp_path: Path) -> None:
    assert get_all_checkpoints(tmp_path / "nowhere") == []
    assert get_last_checkpoint(str(tmp_path / "nowhere")) == []


def test_verify_counts_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, record(1, app="a"), record(1, app="a"), record(2, app="b"))
    info = verify(tmp_path)
    assert (info.path, info.records, info.keys, info.apps, info.whole) == (path, 3, 2, (("a", 2), ("b", 1)), True)
    assert (info.oldest_ns, info.newest_ns, info.size) == (1001, 1002, path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-3])
    info = verify(tmp_path)
    assert (info.records, info.whole) == (2, False)
    assert "the file ends within a record" in str(info.damages[0])


def test_verify_takes_a_run_a_directory_or_a_file(tmp_path: Path) -> None:
    (place,) = runs(tmp_path, "000")
    for name in (place, f"{place}/tasks.log", str(tmp_path / "000")):
        assert verify(name).records == 1
    with pytest.raises(BadCheckpoint, match="there is no checkpoint"):
        verify(tmp_path / "001")
    with pytest.raises(BadCheckpoint, match="holds no checkpoint"):
        verify(tmp_path)


def test_all_runs_are_listed(tmp_path: Path) -> None:
    runs(tmp_path, "000", "001")
    assert [info.records for info in list_checkpoints(tmp_path)] == [1, 1]


def test_compact_keeps_the_newest_record_of_every_call(tmp_path: Path) -> None:
    path = write(tmp_path, record(1, "old"), record(2, "only"), record(1, "new"), record(3, "x" * 5000))
    done = compact([tmp_path])
    assert (done.records_before, done.records_after) == (4, 3)
    assert done.bytes_after == path.stat().st_size < done.bytes_before
    found = {each.meta.task_id: read_value(path, each.offset, each.meta.digest) for each in CheckpointReader(path)}
    assert found == {1: "new", 2: "only", 3: "x" * 5000}
    assert [each.name for each in tmp_path.iterdir()] == ["tasks.log"]


def test_compact_merges_checkpoints_into_another(tmp_path: Path) -> None:
    write(tmp_path / "one", record(1, "old", written_ns=5), record(2, written_ns=6))
    write(tmp_path / "two", record(1, "new", written_ns=7))
    done = compact([tmp_path / "two", tmp_path / "one"], tmp_path / "all")
    assert numbers(done.path) == [2, 1]
    assert [verify(tmp_path / name).records for name in ("one", "two", "all")] == [2, 1, 2]


def test_compact_drops_what_is_damaged_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, record(1), record(2))
    path.write_bytes(path.read_bytes()[:-1])
    assert [damage.tail for damage in compact([tmp_path]).damages] == [True]
    assert verify(tmp_path).whole


def test_compact_refuses_a_checkpoint_that_is_being_written(tmp_path: Path) -> None:
    log = CheckpointLog(tmp_path)
    log.append([record(1)])
    with pytest.raises(BadCheckpoint, match="being written"):
        compact([tmp_path])
    log.close()


def test_readable_end_is_the_size_of_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, record(1))
    assert readable_end(path) == path.stat().st_size


@pytest.mark.parametrize("function", [verify, readable_end])
def test_a_directory_in_the_place_of_the_file_is_an_error(tmp_path: Path, function: Callable[[Path], object]) -> None:
    (tmp_path / "tasks.log").mkdir()
    with pytest.raises(BadCheckpoint):
        function(tmp_path / "tasks.log")
