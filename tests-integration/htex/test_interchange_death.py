"""The interchange dies at every stage of a task's life: it is restarted, and no task is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.errors import ExecutorBroken
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
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


def _refuses(driver: Driver) -> bool:
    try:
        driver.submit(calls.nothing)
    except ExecutorBroken:
        return True
    return False
