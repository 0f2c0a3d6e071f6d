"""Whatever dies in an MPI job, each task has one outcome that says what happened, and nothing is left."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow_core.interfaces.call import Call, TaskSpec
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.testing.extreme_run import AS_ROOT, make_extreme_executor
from flow_executors.testing.local_run import wait_until
from flow_providers.local.provider import LocalProvider

sys.path.insert(0, str(Path(__file__).parent))

from extreme_tasks import PATIENCE_S, connected, deaf, ranks_of  # needs the line above

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]
Drive = Callable[..., Driver]


def replacing() -> LocalProvider:
    """Return a provider that keeps one block."""
    return LocalProvider(min_blocks=1, max_blocks=1, worker_init=AS_ROOT)


def test_a_killed_rank_loses_the_block_by_name_and_the_next_one_runs_on(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    driver = drive(provider=replacing())
    keys = [driver.hold("first"), driver.hold("second")]
    for name in ("first", "second"):
        driver.wait_held(name)
    pid = ranks_of(driver)["flow-rank1"]
    with caplog.at_level(logging.WARNING):
        os.kill(pid, signal.SIGKILL)
        outcomes = driver.outcomes(keys)
        driver.poll(lambda: "the block is lost" in caplog.text, "nobody said it")
    who = f"rank 2 (pid {pid}) on node {socket.gethostname()}"
    assert {outcome.verdict for outcome in outcomes} == {Verdict.LOST}
    losses = [outcome.loss for outcome in outcomes]
    assert all(loss is not None and loss.kind is LossKind.BLOCK and who in loss.reason for loss in losses)
    assert caplog.text.count(f"the block is lost: {who}") == 1
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


def test_a_killed_worker_is_named_and_its_rank_stays(drive: Drive) -> None:
    driver = drive()
    connected(driver)
    before = ranks_of(driver)
    outcome = driver.outcome(driver.submit(calls.kill_self))
    assert outcome.loss is not None
    assert (outcome.loss.kind, outcome.loss.signal) == (LossKind.WORKER, signal.SIGKILL)
    assert [driver.outcome(driver.submit(calls.double, 4)).value for _ in range(4)] == [8] * 4
    assert ranks_of(driver) == before


def test_a_killed_manager_loses_the_block_and_leaves_no_rank(drive: Drive) -> None:
    driver = drive(provider=replacing())
    key = driver.hold("task")
    driver.wait_held("task")
    before = ranks_of(driver)
    os.kill(before["flow-manager"], signal.SIGKILL)
    assert driver.outcome(key).verdict is Verdict.LOST
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in before.values()), "ranks are left", PATIENCE_S)
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


def test_a_stopped_rank_is_noticed_by_its_silence(drive: Drive) -> None:
    driver = drive(heartbeat_threshold=2.0)
    key = driver.hold("task")
    driver.wait_held("task")
    pid = ranks_of(driver)["flow-rank0"]
    os.kill(pid, signal.SIGSTOP)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert f"rank 1 (pid {pid})" in outcome.loss.reason
    assert "was not heard" in outcome.loss.reason
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it is left", PATIENCE_S)


def test_a_task_that_hears_no_timer_ends_with_its_worker_at_its_walltime(drive: Drive) -> None:
    driver = drive()
    outcome = driver.outcome(driver.submit_call(Call(deaf, (60,), spec=TaskSpec(walltime_s=0.2))))
    assert outcome.verdict is Verdict.APP_ERROR
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


@python_app
def once(marks: str, number: int) -> int:
    """Kill the rank above this worker's fork server, the first time; else return the number."""
    import os
    import signal

    import psutil

    try:
        os.mkdir(f"{marks}/killed")
    except FileExistsError:
        return number
    rank = psutil.Process(os.getppid()).ppid()
    os.kill(rank, signal.SIGKILL)
    signal.pause()
    return -1


def test_a_run_goes_on_without_spending_retries(tmp_path: Path) -> None:
    executor = make_extreme_executor(provider=replacing())
    config = Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), retries=0, strategy_period=0.2)
    with flow.load(config):
        futures = [once(str(tmp_path), number) for number in range(20)]
        assert [future.result(timeout=PATIENCE_S) for future in futures] == list(range(20))
    log = next((tmp_path / "runinfo").glob("*/flow.log")).read_text()
    assert log.count("the block is lost: rank ") == 1
