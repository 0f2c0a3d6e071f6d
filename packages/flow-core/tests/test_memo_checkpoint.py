"""The memoizer and its checkpoints: what is written when, what is found again, and why something is not."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.checkpoint.compact import verify
from flow_core.checkpoint.reader import CheckpointReader
from flow_core.checkpoint.record import PYTHON
from flow_core.errors import BadCheckpoint, ConfigurationError
from flow_core.interfaces.memoizer import MemoEntry, MemoKey
from flow_core.memo.explain import why
from flow_core.memo.key import SOURCE
from flow_core.memo.memoizer import BasicMemoizer


def key(number: int, app: str = "app", code: bytes = b"codecode", source: bytes | None = None) -> MemoKey:
    digest = code + number.to_bytes(8, "little")
    parts: tuple[tuple[str, bytes], ...] = (("code", code), ("argument 'x'", number.to_bytes(8, "little")))
    if source is not None:
        parts += ((SOURCE, source),)
    return MemoKey(digest, app, parts)


def entry(number: int, value: object = None, **more: object) -> MemoEntry:
    return MemoEntry(key(number, **more), number, value)  # type: ignore[arg-type]  # options of key


def memoizer(directory: Path, mode: str | None = None, **more: object) -> BasicMemoizer:
    place = directory / "checkpoint"
    return BasicMemoizer(checkpoint_mode=mode, checkpoint_dir=place, **more)  # type: ignore[arg-type]  # its options


def result(memo: BasicMemoizer, number: int) -> object:
    stored = memo.lookup(key(number))
    assert stored is not None
    return stored.result()


def records(directory: Path) -> int:
    place = directory / "checkpoint" / "tasks.log"
    return verify(place).records if place.exists() else 0


def test_task_exit_writes_before_store_returns(tmp_path: Path) -> None:
    memo = memoizer(tmp_path, "task_exit")
    for number in range(3):
        memo.store([entry(number, "x" * 1000)])
        assert records(tmp_path) == number + 1
    memo.close()
    assert records(tmp_path) == 3


def test_what_was_loaded_is_told_to_the_logger_that_was_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = memoizer(tmp_path / "1", "task_exit")
    first.store([entry(1)])
    first.close()
    with caplog.at_level("INFO"):
        memoizer(tmp_path / "2", checkpoint_files=[tmp_path / "1"], logger=logging.getLogger("mine")).close()
    assert {record.name for record in caplog.records if "Loaded 1 results" in record.getMessage()} == {"mine"}


@pytest.mark.parametrize(("mode", "written"), [(None, 0), ("manual", 0), ("dfk_exit", 2), ("periodic", 2)])
def test_the_other_modes_write_at_the_end_or_never(tmp_path: Path, mode: str | None, written: int) -> None:
    memo = memoizer(tmp_path, mode)
    memo.store([entry(1), entry(2)])
    assert records(tmp_path) == 0
    memo.close()
    assert records(tmp_path) == written


@pytest.mark.parametrize("mode", ["manual", "dfk_exit", "periodic", "task_exit"])
def test_a_checkpoint_holds_what_the_task_returned(tmp_path: Path, mode: str) -> None:
    memo, rows = memoizer(tmp_path, mode), [1, 2]
    memo.store([entry(1, rows)])
    rows.append(3)
    found = result(memo, 1)
    assert isinstance(found, list)
    found.append(4)
    memo.checkpoint()
    memo.close()
    later = memoizer(tmp_path / "later", checkpoint_files=[tmp_path / "checkpoint"])
    assert result(later, 1) == [1, 2]


def test_a_damaged_checkpoint_does_not_refuse_the_whole_ones_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("whole", "junk"):
        memo = memoizer(tmp_path / name, "task_exit")
        memo.store([entry(1, "one")])
        memo.close()
    junk = tmp_path / "junk" / "checkpoint"
    (junk / "tasks.log").write_bytes(os.urandom(200))
    with caplog.at_level(logging.WARNING):
        later = memoizer(tmp_path, checkpoint_files=[junk, tmp_path / "whole" / "checkpoint"])
    assert result(later, 1) == "one"
    assert str(junk / "tasks.log") in caplog.text


def test_a_file_named_by_mistake_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    with pytest.raises(BadCheckpoint, match=r"results\.csv is not a checkpoint"):
        memoizer(tmp_path, checkpoint_files=[tmp_path / "results.csv"])


def test_periodic_writes_by_itself(tmp_path: Path) -> None:
    memo = memoizer(tmp_path, "periodic", checkpoint_period=0.02)
    memo.store([entry(1)])
    written = threading.Event()

    def watch() -> None:
        while records(tmp_path) < 1 and not written.wait(0.01):
            pass
        written.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert written.wait(30)
    thread.join(5)
    memo.close()


def test_a_checkpoint_by_hand_is_incremental_and_may_name_tasks(tmp_path: Path) -> None:
    memo = memoizer(tmp_path)
    memo.store([entry(1), entry(2), entry(3)])
    assert memo.checkpoint([2]) == tmp_path / "checkpoint"
    assert records(tmp_path) == 1
    memo.checkpoint()
    memo.checkpoint()
    assert records(tmp_path) == 3
    memo.close()


def test_a_checkpoint_of_nothing_is_a_directory_too(tmp_path: Path) -> None:
    memo = memoizer(tmp_path)
    directory = memo.checkpoint()
    assert directory is not None
    assert directory.is_dir()
    memo.close()


def test_a_run_that_stores_nothing_leaves_nothing(tmp_path: Path) -> None:
    memoizer(tmp_path, "task_exit").close()
    assert list(tmp_path.iterdir()) == []


def test_memoization_off_remembers_and_writes_nothing(tmp_path: Path) -> None:
    memo = memoizer(tmp_path, "task_exit", enabled=False)
    memo.store([entry(1)])
    assert memo.lookup(key(1)) is None
    assert memo.checkpoint() is None
    assert "app_cache=False" in memo.explain(key(1)).summary
    memo.close()
    assert list(tmp_path.iterdir()) == []


def test_results_are_found_in_the_next_run(tmp_path: Path) -> None:
    first = memoizer(tmp_path / "000", "task_exit")
    first.store([entry(1, "small"), entry(2, "x" * 100_000), entry(3)])
    first.close()
    for place in (tmp_path / "000", tmp_path / "000" / "checkpoint", tmp_path / "000" / "checkpoint" / "tasks.log"):
        second = memoizer(tmp_path / "001", checkpoint_files=[place])
        assert (second.loaded, result(second, 1), result(second, 2)) == (3, "small", "x" * 100_000)
        assert result(second, 3) is None
        assert second.lookup(key(4)) is None
        second.close()


def test_of_several_entries_the_newest_wins_in_whatever_order_they_are_named(tmp_path: Path) -> None:
    for run, value in (("000", "old"), ("001", "new")):
        memo = memoizer(tmp_path / run, "task_exit")
        memo.store([entry(1, value)])
        memo.close()
    for names in (("000", "001"), ("001", "000")):
        memo = memoizer(tmp_path / "002", checkpoint_files=[tmp_path / name for name in names])
        assert result(memo, 1) == "new"


def test_a_torn_checkpoint_is_used_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memo = memoizer(tmp_path / "000", "task_exit")
    memo.store([entry(1, "one"), entry(2, "two")])
    memo.close()
    path = tmp_path / "000" / "checkpoint" / "tasks.log"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING, "flow.memo"):
        memo = memoizer(tmp_path / "001", checkpoint_files=[tmp_path / "000"])
    assert (memo.loaded, result(memo, 1), memo.lookup(key(2))) == (1, "one", None)
    assert "the file ends within a record" in caplog.text


def test_a_checkpoint_that_is_not_there_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="name a run's directory"):
        memoizer(tmp_path, checkpoint_files=[tmp_path / "042"])


def test_an_empty_checkpoint_directory_is_an_empty_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "000" / "checkpoint").mkdir(parents=True)
    assert memoizer(tmp_path, checkpoint_files=[tmp_path / "000"]).loaded == 0


def test_large_values_on_file_are_not_kept_in_memory(tmp_path: Path) -> None:
    alive = threading.Event()
    value = _Watched(list(range(1000)), alive)
    memo = memoizer(tmp_path, "task_exit")
    memo.store([entry(1, value)])
    del value
    assert alive.is_set()
    assert result(memo, 1).numbers == list(range(1000))  # type: ignore[attr-defined]  # a _Watched, read back
    memo.close()


class _Watched:
    """Says when it is gone."""

    def __init__(self, numbers: list[int], gone: threading.Event | None = None) -> None:
        self.numbers, self._gone = numbers, gone

    def __getstate__(self) -> dict[str, object]:
        return {"numbers": self.numbers, "_gone": None}

    def __del__(self) -> None:
        if self._gone is not None:
            self._gone.set()


def test_a_value_that_cannot_be_pickled_is_told_of_once_an_app(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memo = memoizer(tmp_path, "task_exit")
    with caplog.at_level(logging.ERROR, "flow.memo"):
        memo.store([entry(1, threading.Lock()), entry(2, threading.Lock()), entry(3, "fine")])
    assert len(caplog.records) == 1
    assert "task 1 of app 'app'" in caplog.text
    memo.close()
    assert records(tmp_path) == 1


def test_a_value_only_cloudpickle_can_take_is_written(tmp_path: Path) -> None:
    first = memoizer(tmp_path / "000", "task_exit")
    first.store([entry(1, lambda: 42)])
    first.close()
    function = result(memoizer(tmp_path, checkpoint_files=[tmp_path / "000"]), 1)
    assert callable(function)
    assert function() == 42


def test_a_full_disk_is_told_of_once_and_written_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    memo = memoizer(tmp_path, "task_exit")
    memo.store([entry(0)])
    monkeypatch.setattr(os, "write", full)
    with caplog.at_level(logging.ERROR, "flow.memo"):
        memo.store([entry(1, "one")])
        memo.store([entry(2, "two")])
    with pytest.raises(BadCheckpoint, match="No space left"):
        memo.checkpoint()
    monkeypatch.undo()
    assert len(caplog.records) == 1
    assert (result(memo, 1), records(tmp_path)) == ("one", 1)
    memo.close()
    assert records(tmp_path) == 3


@pytest.mark.parametrize("mode", ["task_exit", "periodic", "dfk_exit"])
def test_what_a_full_disk_has_room_for_is_kept_and_the_end_tells_how_much_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    real, limit = os.write, 35_000

    def nearly_full(fd: int, data: bytes) -> int:
        room = limit - os.fstat(fd).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:room])

    memo = memoizer(tmp_path, mode)
    monkeypatch.setattr(os, "write", nearly_full)
    memo.store([entry(number, "x" * 10_000) for number in (1, 2, 3, 4, 5)])
    memo.store([entry(6, "small")])
    with pytest.raises(BadCheckpoint, match=r"lacks 2 results, .*No space left on device\. Free space there") as told:
        memo.close()
    assert str(tmp_path / "checkpoint") in str(told.value)
    memo.close()
    monkeypatch.undo()
    later = memoizer(tmp_path / "later", checkpoint_files=[tmp_path / "checkpoint"])
    assert [number for number in range(1, 7) if later.lookup(key(number)) is not None] == [1, 2, 3, 6]


def test_an_entry_of_another_python_is_found_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = b"0123456789abcdef"
    monkeypatch.setattr("flow_core.memo.memoizer.PYTHON", (3, 10))
    first = memoizer(tmp_path / "000", "task_exit")
    first.store([MemoEntry(key(1, code=b"old code", source=source), 1, "value")])
    first.close()
    monkeypatch.undo()
    second = memoizer(tmp_path, checkpoint_files=[tmp_path / "000"])
    stored = second.lookup(key(1, code=b"new code", source=source))
    assert stored is not None
    assert stored.result() == "value"
    assert second.lookup(key(1, code=b"new code", source=b"another source!!")) is None
    assert PYTHON != (3, 10)


def test_an_entry_of_the_same_python_is_not_found_by_its_source(tmp_path: Path) -> None:
    source = b"0123456789abcdef"
    first = memoizer(tmp_path / "000", "task_exit")
    first.store([MemoEntry(key(1, code=b"old code", source=source), 1, "value")])
    first.close()
    second = memoizer(tmp_path, checkpoint_files=[tmp_path / "000"])
    assert second.lookup(key(1, code=b"new code", source=source)) is None


# -- why


def test_a_miss_names_the_parts_that_changed_since_the_nearest(tmp_path: Path) -> None:
    memo = memoizer(tmp_path)
    memo.store([entry(1), entry(2)])
    reason = memo.explain(key(2, code=b"edited!!"))
    assert (reason.nearest, reason.changed) == ("task 2", ("code",))
    assert "changed: code" in reason.summary
    assert memo.explain(key(7)).changed == ("argument 'x'",)
    assert memo.explain(key(1)).changed == ()
    assert memo.explain(key(1, app="other")).nearest is None


def test_the_tasks_of_a_run_are_explained_against_earlier_ones(tmp_path: Path) -> None:
    _two_runs(tmp_path)
    found = why(tmp_path / "001", [tmp_path / "000"])
    assert [(each.app, each.task_id, each.reason.changed) for each in found] == [
        ("app", 1, ("code",)),
        ("app", 9, ("argument 'x'",)),
        ("other", 5, ()),
    ]
    assert found[2].reason.nearest is None
    assert [each.task_id for each in why(tmp_path / "001", [tmp_path / "000"], app="other")] == [5]


def test_a_call_whose_earlier_one_failed_is_explained_by_that(tmp_path: Path) -> None:
    earlier = memoizer(tmp_path / "000", "dfk_exit")
    earlier.store([entry(1)])
    earlier.failed(key(2), 7, "ValueError: bad")
    earlier.close()
    later = memoizer(tmp_path / "001", "dfk_exit")
    later.store([entry(2), entry(3), entry(2, code=b"repaired")])
    later.close()
    same, other, repaired = (each.reason for each in why(tmp_path / "001", [tmp_path / "000"]))
    assert (same.failed, same.changed) == ("ValueError: bad", ())
    assert f"the same call of app 'app', task 7 in {tmp_path / '000'}, failed (ValueError: bad)" in same.summary
    assert "failures are not kept" in same.summary
    assert (other.failed, other.changed) == ("", ("argument 'x'",))  # as near, and stored
    assert (repaired.failed, repaired.changed) == ("ValueError: bad", ("code",))
    assert repaired.summary.endswith("changed since then: code")


def test_only_the_last_failures_are_kept(tmp_path: Path) -> None:
    memo = memoizer(tmp_path, "dfk_exit")
    for number in range(3000):
        memo.failed(key(number), number, "ValueError: bad")
    memo.close()
    failures = [record.meta.task_id for record in CheckpointReader(tmp_path / "checkpoint" / "failures.log")]
    assert failures == list(range(2000, 3000))


def test_without_a_checkpoint_no_failure_is_written(tmp_path: Path) -> None:
    memo = memoizer(tmp_path)
    memo.failed(key(1), 1, "ValueError: bad")
    memo.close()
    assert not (tmp_path / "checkpoint").exists()


def _two_runs(directory: Path) -> None:
    plans: list[tuple[str, Callable[[], list[MemoEntry]]]] = [
        ("000", lambda: [entry(1), entry(2)]),
        ("001", lambda: [entry(1, code=b"edited!!"), entry(9), entry(5, app="other")]),
    ]
    for run, make in plans:
        memo = memoizer(directory / run, "task_exit")
        memo.store(make())
        memo.close()


# -- options


def test_an_unknown_mode_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint_mode='sometimes'"):
        memoizer(tmp_path, "sometimes")
