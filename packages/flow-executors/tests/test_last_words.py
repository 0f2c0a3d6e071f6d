"""What a manager told of its logs is kept within bounds, and given to the losses of its tasks."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from flow_core.interfaces.outcome import Loss, LossKind
from flow_executors.client.last_words import LastWords
from flow_executors.errors import BadMessage
from flow_executors.wire.files import END_BYTES, MOST_ENDS, pack_ends

LOGGER = logging.getLogger("test")


@pytest.fixture
def words(tmp_path: Path) -> LastWords:
    return LastWords(lambda number: tmp_path / "logs" if number == 1 else None)


def test_a_lost_task_has_the_end_of_its_managers_log(words: LastWords) -> None:
    words.told(1, pack_ends({"manager.log": "killed soon", "worker_0.log": "x"}))
    loss = Loss(LossKind.MANAGER, reason="silent")
    assert words.added(loss, 1) == Loss(LossKind.MANAGER, reason="silent", stderr_tail="killed soon")
    assert words.added(loss, 2) == loss
    worker = Loss(LossKind.WORKER, reason="died", stderr_tail="its own")
    assert words.added(worker, 1) == worker


def test_a_manager_whose_node_writes_its_logs_itself_is_not_listened_to(words: LastWords) -> None:
    words.told(2, pack_ends({"manager.log": "x"}))
    assert not words.of(2)


def test_a_log_that_came_whole_is_not_replaced(words: LastWords, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "manager.log").write_text("all of it")
    words.told(1, pack_ends({"manager.log": "the end", "worker_0.log": "more"}))
    words.write(1, LOGGER)
    assert (tmp_path / "logs" / "manager.log").read_text() == "all of it"
    assert (tmp_path / "logs" / "worker_0.log").read_text().endswith("more")
    assert not words.of(1)


@pytest.mark.parametrize("name", ["../manager.log", "/tmp/x.log", "manager.txt", ".log", "a/b.log", "x" * 99 + ".log"])
def test_names_that_are_no_logs_are_not_written(words: LastWords, tmp_path: Path, name: str) -> None:
    words.told(1, pack_ends({name: "x"}))
    words.write(1, LOGGER)
    assert list(tmp_path.rglob("*")) == []


def test_what_one_manager_may_tell_has_a_bound(words: LastWords, tmp_path: Path) -> None:
    words.told(1, pack_ends({"manager.log": "x" * 3 * END_BYTES}))
    for number in range(3 * MOST_ENDS):
        words.told(1, pack_ends({f"worker_{number}.log": "x"}))
    words.write(1, LOGGER)
    found = {path.name: len(path.read_text()) for path in (tmp_path / "logs").iterdir()}
    assert len(found) == MOST_ENDS
    assert END_BYTES < found["manager.log"] < END_BYTES + 200
    assert f"worker_{3 * MOST_ENDS - 1}.log" in found


@pytest.mark.parametrize("said", [[], 1, {"manager.log": 1}, {str(n): "" for n in range(MOST_ENDS + 1)}])
def test_what_are_no_ends_of_logs_is_refused(words: LastWords, said: object) -> None:
    with pytest.raises(BadMessage):
        words.told(1, json.dumps(said).encode())


def test_what_is_no_json_is_refused(words: LastWords) -> None:
    with pytest.raises(BadMessage):
        words.told(1, b"[" * 100_000)
