"""The interchange dies at every stage of a task's life: it is restarted, and no task is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.errors import ExecutorBroken
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.client import client, interchange_process
from flow_executors.testing.local_run import interchange_pid, manager_pid, wait_until

Drive = Callable[..., Driver]


@pytest.mark.parametrize("stage", ["after_tasks", "after_dispatch", "after_results"])
def test_tasks_survive_its_death(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, way: dict[str, object]
) -> None:
    mark = tmp_path / "killed"
    monkeypatch.setenv("FLOW_FAULT", f"interchange.{stage}:1:kill:file={mark}")
    driver = drive(**way)
    outcomes = driver.outcomes([driver.submit(calls.double, number) for number in range(100)])
    assert mark.exists()
    assert [outcome.value for outcome in outcomes] == [2 * number for number in range(100)]


def test_a_running_task_goes_on_and_is_run_once(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(**way)
    held = [driver.hold("one"), driver.hold("two")]
    driver.wait_held("one")
    driver.wait_held("two")
    waiting = [driver.submit(calls.double, number) for number in range(20)]
    driver.executor.flush()
    first, worker = interchange_pid(driver), manager_pid(driver)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: interchange_pid(driver) != first, "no second interchange")
    driver.release()
    outcomes = driver.outcomes(held + waiting)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK}
    assert manager_pid(driver) == worker


def test_one_that_is_frozen_is_replaced(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(**way)
    driver.outcome(driver.submit(calls.nothing))
    os.kill(interchange_pid(driver), signal.SIGSTOP)
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


def test_one_that_dies_again_and_again_breaks_the_executor_with_a_reason(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOW_FAULT", "interchange.after_tasks:1+:kill")
    driver = drive()
    outcome = driver.outcome(driver.submit(calls.nothing))
    assert outcome.verdict in (Verdict.LOST, Verdict.REFUSED)
    text = str(outcome.error or (outcome.loss and outcome.loss.reason))
    assert "interchange died" in text
    assert "signal 9" in text
    assert outcome.loss is None or outcome.loss.kind is LossKind.INTERCHANGE
    wait_until(lambda: _refuses(driver), "a broken executor takes tasks")


def test_one_that_could_not_be_kept_running_is_started_afresh_for_a_later_call(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RESUME_AFTER_S", 1.0)
    monkeypatch.setenv("FLOW_FAULT", "interchange.after_tasks:1+:kill")
    driver = drive()
    assert driver.outcome(driver.submit(calls.nothing)).verdict in (Verdict.LOST, Verdict.REFUSED)
    monkeypatch.delenv("FLOW_FAULT")
    keys: list[TryKey] = []

    def taken() -> bool:
        try:
            keys.append(driver.submit(calls.double, 4))
        except ExecutorBroken:
            return False
        return True

    wait_until(taken, "no task is taken any more")
    assert driver.outcome(keys[0]).value == 8


def test_one_that_cannot_be_started_for_a_moment_is_tried_again(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = drive()
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    faults = [OSError(28, "No space left on device"), OSError(24, "Too many open files")]
    popen = subprocess.Popen

    def failing(*args: object, **kwargs: object) -> object:
        if faults:
            raise faults.pop()
        return popen(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(interchange_process.subprocess, "Popen", failing)
    os.kill(interchange_pid(driver), signal.SIGKILL)
    assert driver.outcome(driver.submit(calls.double, 5)).value == 10
    assert not faults


def test_one_whose_directory_was_moved_is_replaced(drive: Drive, tmp_path: Path) -> None:
    driver = drive()
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    driver._context.executor_dir.rename(tmp_path / "elsewhere")
    os.kill(interchange_pid(driver), signal.SIGKILL)
    assert driver.outcome(driver.submit(calls.double, 5)).value == 10


def _refuses(driver: Driver) -> bool:
    try:
        driver.submit(calls.nothing)
    except ExecutorBroken:
        return True
    return False
