"""The manager dies, is frozen, or never comes: its tasks are reported with what happened, nothing hangs."""

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
from flow_executors import HighThroughputExecutor
from flow_executors.testing.local_run import manager_pid, wait_until
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]


@pytest.mark.parametrize("stage", ["manager.after_recv", "manager.before_send"])
def test_its_tasks_are_lost_by_name_and_the_rest_runs_in_the_next_block(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, way: dict[str, object]
) -> None:
    monkeypatch.setenv("FLOW_FAULT", f"{stage}:4:kill:file={tmp_path / 'killed'}")
    driver = drive(provider=LocalProvider(min_blocks=1, max_blocks=1), **way)
    outcomes = driver.outcomes([driver.submit(calls.double, number) for number in range(500)])
    lost = [outcome.loss for outcome in outcomes if outcome.verdict is Verdict.LOST]
    assert lost
    assert all(loss is not None and loss.kind is LossKind.MANAGER and "manager" in loss.reason for loss in lost)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK, Verdict.LOST}


def test_a_killed_one_is_noticed_at_once(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(heartbeat_period=30, heartbeat_threshold=120, **way)
    key = driver.hold("task")
    driver.wait_held("task")
    os.kill(manager_pid(driver), signal.SIGKILL)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert outcome.place is not None
    assert outcome.place.node


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_one_that_dies_on_the_scripts_machine_leaves_its_signal_and_its_last_words(
    drive: Drive, way: dict[str, object], number: signal.Signals
) -> None:
    driver = drive(heartbeat_period=30, heartbeat_threshold=120, **way)
    key = driver.hold("task")
    driver.wait_held("task")
    os.kill(manager_pid(driver), number)
    loss = driver.outcome(key).loss
    assert loss is not None
    assert loss.kind is LossKind.MANAGER
    assert loss.signal == number
    assert "flow.manager INFO registered as manager" in loss.stderr_tail
    assert "The end of the standard error of its job:" in loss.stderr_tail


def test_a_frozen_one_is_lost_by_silence_and_leaves_when_it_wakes(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(**way)
    key = driver.hold("task")
    driver.wait_held("task")
    pid = manager_pid(driver)
    os.kill(pid, signal.SIGSTOP)
    try:
        outcome = driver.outcome(key)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert "silent" in outcome.loss.reason
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it did not leave")


def test_a_job_that_exits_at_once_gives_its_own_words_to_all_tasks(drive: Drive) -> None:
    driver = drive(launch_cmd="echo no such module >&2; exit 7 #")
    outcome = driver.outcome(driver.submit(calls.nothing))
    assert outcome.verdict is Verdict.REFUSED
    assert isinstance(outcome.error, ExecutorBroken)
    assert "no such module" in str(outcome.error)
    assert "exit code 7" in str(outcome.error)


def test_as_many_blocks_must_fail_as_were_asked_for(drive: Drive) -> None:
    driver = drive(launch_cmd="exit 3 #", provider=LocalProvider(init_blocks=3, max_blocks=3))
    outcome = driver.outcome(driver.submit(calls.nothing))
    assert "3 blocks" in str(outcome.error)


def test_why_a_task_waits_is_told(drive: Drive) -> None:
    driver = drive(launch_cmd="sleep 100 #")
    key = driver.submit(calls.nothing)
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    texts = [cause.text for cause in executor.why_waiting(key)]
    assert "no node of 'htex' is connected yet" in texts
