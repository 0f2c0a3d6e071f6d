"""What is left of a manager of the script's own machine that died: its signal, and the end of its log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Verdict
from flow_executors.client import near_words
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.near_words import NearWords, signal_of
from flow_executors.wire.messages import Registration

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def gone() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def lost() -> Outcome:
    return Outcome(TryKey(1), Verdict.LOST, loss=Loss(LossKind.MANAGER, reason="its connection broke"))


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("job.sh: line 19: 4711 Killed                  bash -c x", 9),
        ("job.sh: line 19: 4711 Segmentation fault      (core dumped) bash -c x\nafter", 11),
        ("job.sh: line 19:  4711 Terminated", 15),
        ("job.sh: line 19: 14711 Killed   bash", None),
        ("job.sh: line 19: 4711 Killedx   bash", None),
        ("4711", None),
        ("", None),
    ],
)
def test_the_signal_is_read_from_what_the_shell_wrote(words: str, number: int | None) -> None:
    assert signal_of(words, 4711) == number


def test_all_tasks_of_a_manager_have_its_last_words_which_are_read_once(tmp_path: Path, gone: int) -> None:
    log = tmp_path / "manager.log"
    log.write_text("".join(f"line {number}\n" for number in range(500)))
    asked: list[str] = []

    def job_words(block: str) -> str:
        asked.append(block)
        return f"job.sh: line 1: {gone} Killed  bash"

    words = NearWords(log, gone, "7", job_words)
    losses = [words.outcome(lost()).loss for _ in range(3)]
    assert asked == ["7"]
    assert losses[0] is not None
    assert losses[0].signal == 9
    assert losses[0].stderr_tail.startswith("line 488\n")
    job = f"The end of the standard error of its job:\njob.sh: line 1: {gone} Killed  bash"
    assert losses[0].stderr_tail.endswith(f"line 499\n{job}")
    assert losses[1] == losses[2] == losses[0]


def test_what_cannot_be_read_in_time_is_left_out(tmp_path: Path, gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_words, "READ_S", 0.05)
    hangs = threading.Event()
    words = NearWords(tmp_path / "manager.log", gone, "0", lambda _block: str(hangs.wait(30)))
    try:
        assert words.outcome(lost()).loss == lost().loss
    finally:
        hangs.set()


def test_a_manager_that_lives_has_no_end_that_is_waited_for(tmp_path: Path) -> None:
    asked: list[str] = []
    words = NearWords(tmp_path / "none.log", os.getpid(), "0", lambda block: asked.append(block) or "")
    assert words.outcome(lost()).loss == lost().loss
    assert asked == ["0"]


def test_words_that_cannot_be_read_do_not_keep_the_loss_back(tmp_path: Path, gone: int) -> None:
    def raising(block: str) -> str:
        raise OSError(f"no {block}")

    found = NearWords(tmp_path / "manager.log", gone, "0", raising).outcome(lost())
    assert found.loss is not None
    assert "OSError: no 0" in found.loss.stderr_tail


def test_a_manager_that_leaves_as_the_executor_ends_is_not_read(tmp_path: Path) -> None:
    directory = ManagerDirectory("htex", tmp_path)
    offer = Registration("m", "0", "here", os.getpid(), 1, host_id=directory._boot_id)
    directory.add(1, offer)
    assert directory.near_words(1) is not None
    directory.ending = True
    assert directory.near_words(1) is None
