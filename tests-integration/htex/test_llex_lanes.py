"""LowLatencyExecutor, workers of this machine: the script gives them tasks itself, and nothing is lost by that."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.errors import AppTimeout, ExecutorError
from flow_core.interfaces.call import Call, TaskSpec, TryKey
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.common.large_results import LARGE
from flow_executors.direct.client import DirectClient
from flow_executors.llex import LowLatencyExecutor
from flow_executors.testing.local_run import PATIENCE_S, Frozen, manager_pid, wait_until
from flow_executors.testing.node import alive, command_of, descendants
from flow_executors.worker.packets import LANE_ROOM, PACKET
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]
TOO_LARGE = b"x" * PACKET
"""An argument with which a task does not go over a lane."""


@pytest.fixture
def drive(drive_direct: Drive) -> Drive:
    """Give a function that starts an executor."""
    return drive_direct


def warm(driver: Driver) -> None:
    """Run tasks one by one until they go over lanes: functions are known, and the manager has nothing to do."""
    for number in range(20):
        assert driver.outcome(driver.submit(calls.double, number)).value == 2 * number


def running(driver: Driver, told: bool = False) -> TryKey:
    """Let a task run until it is released, over a lane, and wait until its manager knows of it if that is wanted."""
    warm(driver)
    key = driver.hold("task")
    driver.wait_held("task")
    if told:
        assert driver.listener.wait_started([key], PATIENCE_S)
    return key


def workers_of(driver: Driver) -> list[int]:
    """Return the workers' pids."""
    return [pid for pid in descendants(manager_pid(driver)) if command_of(pid).startswith("flow-w")]


def busy_worker(driver: Driver) -> int:
    """Return the pid of the one worker that holds."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [pid for pid in workers_of(driver) if "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()]
        return len(found) == 1

    wait_until(look, "no worker holds")
    return found[0]


def ended(driver: Driver, keys: list[TryKey], timeout_s: float) -> bool:
    """Whether some of the keys have an outcome within the time."""
    outcomes = driver.listener.outcomes
    return driver.listener.wait_until(lambda: any(key in outcomes for key in keys), timeout_s)


def pipes_open() -> list[str]:
    """Return the pipes of which this process has an end open."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return sorted(name for name in found if name.startswith("pipe:"))


def test_small_tasks_do_not_pass_through_the_manager(drive: Drive) -> None:
    driver = drive(heartbeat_period=30, heartbeat_threshold=120)
    driver.outcome(driver.submit(calls.fail, "text"))
    warm(driver)
    with Frozen(manager_pid(driver)):
        assert [driver.outcome(driver.submit(calls.double, number)).value for number in range(50)] == [
            2 * number for number in range(50)
        ]
        assert isinstance(driver.outcome(driver.submit(calls.fail, "text")).error, ValueError)
    assert driver.outcome(driver.submit(calls.echo, TOO_LARGE)).value == ((TOO_LARGE,), {})


def test_tasks_over_the_network_pass_through_the_manager(drive: Drive, network: dict[str, object]) -> None:
    driver = drive(heartbeat_period=30, heartbeat_threshold=120, **network)
    warm(driver)
    with Frozen(manager_pid(driver)):
        key = driver.submit(calls.double, 4)
        assert not ended(driver, [key], 0.5)
    assert driver.outcome(key).value == 8


def test_all_workers_get_small_tasks_and_more_of_them_wait(drive: Drive) -> None:
    driver = drive()
    warm(driver)
    outcomes = driver.outcomes([driver.submit(os.getpid) for _ in range(200)])
    assert {outcome.value for outcome in outcomes} == set(workers_of(driver))


@pytest.mark.parametrize("size", [LANE_ROOM // 2, 2 * LANE_ROOM, 2 * LARGE, 8 * LARGE])
def test_results_of_any_size_come_back(drive: Drive, size: int) -> None:
    driver = drive()
    warm(driver)
    for _ in range(3):
        assert driver.outcome(driver.submit(bytes, size)).value == bytes(size)
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


def test_small_tasks_run_between_large_ones_and_those_of_other_classes(drive: Drive) -> None:
    driver = drive()
    spec = TaskSpec(walltime_s=20.0)
    keys: list[TryKey] = []
    lock = threading.Lock()

    def submit(kind: int) -> None:
        for number in range(60):
            if kind == 0:
                key = driver.submit(calls.echo, number)
            elif kind == 1:
                key = driver.submit(calls.echo, TOO_LARGE)
            else:
                key = driver.submit_call(Call(calls.echo, (number,), spec=spec))
            with lock:
                keys.append(key)
            if number % 4 == kind:
                driver.outcome(key)

    threads = [threading.Thread(target=submit, args=(kind,)) for kind in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(keys) == 180
    assert {outcome.verdict for outcome in driver.outcomes(keys)} == {Verdict.OK}


def test_a_long_task_leaves_the_other_worker_to_the_others(drive: Drive) -> None:
    driver = drive()
    warm(driver)
    key = driver.hold("long")
    driver.wait_held("long")
    for argument in (1, TOO_LARGE, 2, TOO_LARGE):
        assert driver.outcome(driver.submit(calls.echo, argument)).value == ((argument,), {})
    assert driver.listener.wait_started([key], PATIENCE_S)
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    driver.release()
    assert driver.outcome(key).verdict is Verdict.OK


# -- deaths of workers


@pytest.mark.parametrize("stage", ["worker.before_run", "worker.after_run", "worker.result_written"])
def test_a_worker_that_dies_at_any_stage_costs_its_own_task_at_most(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("FLOW_FAULT", f"{stage}:30:kill:file={tmp_path / 'killed'}")
    driver = drive()
    before = pipes_open()
    verdicts = []
    for number in range(120):
        outcome = driver.outcome(driver.submit(calls.double, number))
        verdicts.append(outcome.verdict)
        if outcome.verdict is Verdict.OK:
            assert outcome.value == 2 * number
        else:
            assert outcome.loss is not None
            assert (outcome.loss.kind, outcome.loss.signal) == (LossKind.WORKER, signal.SIGKILL)
    assert (tmp_path / "killed").exists()
    assert verdicts.count(Verdict.LOST) == (0 if stage == "worker.result_written" else 1)
    assert verdicts.count(Verdict.OK) == 120 - verdicts.count(Verdict.LOST)
    wait_until(lambda: len(pipes_open()) <= len(before) + 4, "the ends of a dead worker's pipes are left")


@pytest.mark.parametrize("told", [False, True])
def test_the_death_of_a_worker_is_told_whether_the_manager_knew_of_its_task_or_not(drive: Drive, told: bool) -> None:
    driver = drive()
    key = running(driver, told)
    pid = busy_worker(driver)
    os.kill(pid, signal.SIGSEGV)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert (outcome.loss.kind, outcome.loss.signal) == (LossKind.WORKER, signal.SIGSEGV)
    assert outcome.loss.place is not None
    assert outcome.loss.place.pid == pid
    warm(driver)


def test_a_task_that_a_dead_worker_had_not_begun_runs_elsewhere(drive: Drive) -> None:
    driver = drive()
    warm(driver)
    (pid,) = {driver.outcome(driver.submit(os.getpid)).value for _ in range(10)}
    for _ in range(3):
        with Frozen(pid):
            key = driver.submit(calls.double, 21)  # into the pipe of the worker that ran the others
            os.kill(pid, signal.SIGKILL)
            assert driver.outcome(key).value == 42
        warm(driver)
        pid = driver.outcome(driver.submit(os.getpid)).value


# -- cancelling


@pytest.mark.parametrize("told", [False, True])
def test_a_running_task_is_killed_on_demand_and_not_else(drive: Drive, told: bool) -> None:
    driver = drive()
    key = running(driver, told)
    driver.executor.cancel([key])
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    assert driver.executor.outstanding() == 1
    driver.executor.cancel([key], kill=True)
    assert driver.outcome(key).verdict is Verdict.CANCELLED
    warm(driver)


def test_a_task_that_has_not_begun_is_cancelled(drive: Drive) -> None:
    driver = drive()
    warm(driver)
    pid = driver.outcome(driver.submit(os.getpid)).value
    with Frozen(pid):
        key = driver.submit(calls.double, 21)
        driver.executor.cancel([key])
        assert driver.outcome(key).verdict is Verdict.CANCELLED
    warm(driver)


def test_a_walltime_holds_after_small_tasks(drive: Drive) -> None:
    driver = drive()
    warm(driver)
    key = driver.submit_call(Call(time.sleep, (20,), spec=TaskSpec(walltime_s=0.3)))
    assert isinstance(driver.outcome(key).error, AppTimeout)
    warm(driver)


# -- managers that leave


def test_a_block_that_is_drained_ends_what_runs_there_first(drive: Drive) -> None:
    driver = drive(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=2))
    executor = driver.executor
    wait_until(lambda: len(executor.connected_blocks()) == 2, "two blocks did not connect")
    warm(driver)
    keys = [driver.hold(name) for name in ("one", "two")]
    for name in ("one", "two"):
        driver.wait_held(name)
    assert executor.scale_in(block_ids=["1"])
    assert not ended(driver, keys, 1.0)
    driver.release()
    assert {outcome.verdict for outcome in driver.outcomes(keys)} == {Verdict.OK}
    wait_until(lambda: executor.connected_blocks() == ["0"], "the block did not leave")
    warm(driver)


def test_a_block_that_is_ended_by_its_scheduler_says_so_of_what_ran_there(drive: Drive) -> None:
    driver = drive()
    key = running(driver)
    os.kill(manager_pid(driver), signal.SIGTERM)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.BLOCK
    warm(driver)


def test_of_a_block_that_is_ended_late_what_ran_for_most_of_it_has_exceeded_it(drive: Drive) -> None:
    provider = LocalProvider(max_blocks=1)
    provider.walltime_s = 0.9  # which it does not enforce: less than a second
    driver = drive(provider=provider)
    key = running(driver, told=True)
    os.kill(manager_pid(driver), signal.SIGTERM)
    outcome = driver.outcome(key)
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.WALLTIME


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_tasks_of_a_manager_that_is_gone_are_lost_and_the_next_one_has_lanes_too(
    drive: Drive, how: signal.Signals
) -> None:
    driver = drive(heartbeat_threshold=1)
    before = pipes_open()
    key = running(driver)
    pid = manager_pid(driver)
    os.kill(pid, how)
    outcome = driver.outcome(key)
    if how is signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.MANAGER
    wait_until(lambda: not alive(pid), "it did not leave")
    warm(driver)
    with Frozen(manager_pid(driver)):
        assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    assert len(pipes_open()) <= len(before) + 4


def test_nothing_is_left_open_at_the_end_nor_in_a_forked_child(drive: Drive) -> None:
    before = pipes_open()
    driver = drive()
    warm(driver)
    open_here = pipes_open()
    assert len(open_here) >= len(before) + 4
    child = os.fork()
    if not child:
        os._exit(min(255, len(pipes_open())))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(open_here) - 4
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    driver.shutdown()
    assert pipes_open() == before


def test_a_question_has_a_deadline_where_another_thread_is_held_up(drive: Drive) -> None:
    executor = drive().executor
    assert isinstance(executor, LowLatencyExecutor)
    client = executor._started().client
    assert isinstance(client, DirectClient)
    assert client.command("blocks", timeout_s=10).error == ""
    with client._exchange._lock, pytest.raises(ExecutorError, match=r"no answer to blocks within 0\.05 s"):
        client.command("blocks", timeout_s=0.05)
