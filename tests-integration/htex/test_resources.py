"""What tasks ask of nodes, through the whole product: packing, priorities, refusals, cancelling anywhere on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from flow_core.errors import TaskRefused
from flow_core.interfaces.call import Call, Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import HighThroughputExecutor
from flow_executors.testing.local_run import manager_pid, wait_until
from flow_executors.testing.node import alive, command_of, descendants
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]


def submit(driver: Driver, spec: TaskSpec, func: Callable[..., object], *args: object) -> int:
    return driver.submit_call(Call(func, args, spec=spec))


def order(driver: Driver, keys: list[int]) -> list[int]:
    """Return keys by when they started."""
    outcomes = driver.outcomes(keys)  # type: ignore[arg-type]  # keys of this driver
    return [outcome.key for outcome in sorted(outcomes, key=lambda outcome: outcome.started_ns)]


MISFITS = (
    (TaskSpec(Resources(cores=64.0)), "it asks for 64 cores, the node's workers have 1"),
    (TaskSpec(Resources(memory_mb=1 << 40)), "MB of memory"),
    (TaskSpec(Resources(gpus=1.0)), "it asks for 1 GPUs, the node has 0"),
    (TaskSpec(Resources(named=(("licence", 1.0),))), "'licence'"),
    (TaskSpec(Resources(nodes=2)), "it asks for 2 nodes"),
)


def test_tasks_that_no_node_can_run_are_refused_by_name(drive: Drive) -> None:
    driver = drive()
    keys = [submit(driver, spec, calls.nothing) for spec, _ in MISFITS]
    for outcome, (_, said) in zip(driver.outcomes(keys), MISFITS, strict=True):  # type: ignore[arg-type]
        assert outcome.verdict is Verdict.REFUSED
        assert isinstance(outcome.error, TaskRefused)
        assert said in str(outcome.error)
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


def test_a_task_longer_than_the_blocks_is_refused_and_a_shorter_one_runs(drive: Drive) -> None:
    provider = LocalProvider(max_blocks=1, walltime="00:01:00", enforce_walltime=True)
    driver = drive(provider=provider)
    long, short = (TaskSpec(running_time_min_s=seconds) for seconds in (3600.0, 20.0))
    assert driver.outcome(submit(driver, short, calls.double, 2)).value == 4  # type: ignore[arg-type]
    outcome = driver.outcome(submit(driver, long, calls.nothing))  # type: ignore[arg-type]
    assert outcome.verdict is Verdict.REFUSED
    assert "a block that lasts 3600 s" in str(outcome.error)


def test_the_urgent_come_first_and_equals_in_their_order(drive: Drive) -> None:
    driver = drive(max_workers=1)
    first = driver.hold("first")
    driver.wait_held("first")
    keys = {p: [submit(driver, TaskSpec(priority=p), calls.nothing) for _ in range(3)] for p in (-1, 3, 7)}
    driver.executor.flush()
    plain = [driver.submit(calls.nothing) for _ in range(3)]
    driver.executor.flush()
    driver.release("first")
    driver.outcome(first)
    assert order(driver, [*keys[-1], *plain, *keys[3], *keys[7]])[:6] == [*keys[7], *keys[3]]


def test_wide_tasks_and_narrow_ones_share_a_node(drive: Drive) -> None:
    driver = drive(max_workers=4)
    wide = TaskSpec(Resources(cores=1.5))  # three workers of half a core each
    keys = [submit(driver, wide, calls.double, n) if n % 5 == 0 else driver.submit(calls.double, n) for n in range(200)]
    assert [outcome.value for outcome in driver.outcomes(keys)] == [2 * n for n in range(200)]  # type: ignore[arg-type]


@pytest.mark.parametrize("kill", [False, True])
def test_what_has_not_started_is_cancelled_wherever_it_waits(drive: Drive, kill: bool) -> None:
    driver = drive()
    held = [driver.hold("one"), driver.hold("two")]
    driver.wait_held("one")
    driver.wait_held("two")
    waiting = [
        driver.submit(calls.double, number) for number in range(3000)
    ]  # more than the window: in the client, too
    special = [submit(driver, TaskSpec(priority=1), calls.double, 1) for _ in range(5)]
    driver.executor.flush()
    driver.executor.cancel([*waiting, *special], kill=kill)  # type: ignore[list-item]
    outcomes = driver.outcomes([*waiting, *special])  # type: ignore[list-item]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.CANCELLED}
    driver.release()
    assert {outcome.verdict for outcome in driver.outcomes(held)} == {Verdict.OK}


def test_short_tasks_in_the_pipe_of_a_busy_worker_are_cancelled(drive: Drive) -> None:
    driver = drive(max_workers=1)
    driver.outcomes([driver.submit(calls.nothing) for _ in range(300)])  # now it prefetches
    held = driver.hold("long")
    behind = [driver.submit(calls.nothing) for _ in range(20)]
    driver.wait_held("long")
    driver.executor.flush()
    driver.executor.cancel(behind)
    assert {outcome.verdict for outcome in driver.outcomes(behind)} == {Verdict.CANCELLED}
    driver.release()
    assert driver.outcome(held).verdict is Verdict.OK


def test_a_running_task_is_killed_with_all_that_it_started_and_its_worker_replaced(drive: Drive) -> None:
    driver = drive(max_workers=1)
    manager = manager_pid(driver)
    key = driver.submit(os.system, "trap '' TERM; sleep 600 & sleep 600")
    wait_until(lambda: _sleeps(manager) == 2, "both sleeps run")
    below = [pid for pid in descendants(manager) if command_of(pid) != "flow-forkserver"]
    driver.executor.cancel([key], kill=True)
    assert driver.outcome(key).verdict is Verdict.CANCELLED
    wait_until(lambda: not any(alive(pid) for pid in below), "what the task had started is left")
    assert driver.outcome(driver.submit(os.getpid)).value not in below


def test_a_running_task_is_left_alone_without_kill(drive: Drive) -> None:
    driver = drive(max_workers=1)
    key = driver.hold("one")
    driver.wait_held("one")
    driver.executor.cancel([key])
    driver.release()
    assert driver.outcome(key).verdict is Verdict.OK


def _sleeps(pid: int) -> int:
    return sum(command_of(below) == "sleep" for below in descendants(pid))


def test_accelerators_affinity_and_names_reach_the_workers(drive: Drive) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    driver = drive(available_accelerators=["a", "b"], cpu_affinity="block", max_workers=2)
    outcomes = driver.outcomes([driver.submit(_whereabouts) for _ in range(50)])
    seen = {outcome.value for outcome in outcomes}
    assert {device for device, _ in seen} <= {"a", "b"}  # type: ignore[misc]
    assert {allowed for _, allowed in seen} <= {(cpu,) for cpu in cpus}  # type: ignore[misc]
    both = driver.outcome(submit(driver, TaskSpec(Resources(gpus=2.0)), os.getenv, "CUDA_VISIBLE_DEVICES"))  # type: ignore[arg-type]
    assert set(str(both.value).split(",")) == {"a", "b"}


def _whereabouts() -> tuple[str, tuple[int, ...]]:
    import time

    time.sleep(0.002)
    return os.environ["CUDA_VISIBLE_DEVICES"], tuple(sorted(os.sched_getaffinity(0)))


def test_after_the_drain_period_managers_leave_and_others_take_over(drive: Drive) -> None:
    driver = drive(drain_period=1.0, provider=LocalProvider(min_blocks=1, max_blocks=1))
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    first = manager_pid(driver)
    held = driver.hold("across")
    driver.wait_held("across")
    wait_until(lambda: driver.executor.load().slots == 0, "it did not drain")
    waiting = driver.submit(calls.double, 5)
    driver.release()
    assert driver.outcome(held).verdict is Verdict.OK
    assert driver.outcome(waiting).value == 10
    wait_until(lambda: not alive(first), "the drained manager did not leave")


def test_blocks_are_filled_one_after_the_other_by_the_selector_block(drive: Drive) -> None:
    driver = drive(
        manager_selector="block", max_workers=2, provider=LocalProvider(init_blocks=2, min_blocks=2, max_blocks=2)
    )
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    wait_until(lambda: len(executor.connected_managers()) == 2, "two blocks")
    places = {driver.outcome(driver.submit(calls.nothing)).place for _ in range(20)}
    assert len({place.block for place in places if place is not None}) == 1


def test_a_block_error_handler_decides_about_failed_blocks(drive: Drive) -> None:
    asked: list[dict[str, object]] = []

    def handler(executor: object, failed: dict[str, object]) -> BaseException:
        asked.append(dict(failed))
        return RuntimeError("no more of this")

    driver = drive(launch_cmd="exit 3 #", block_error_handler=handler)
    outcome = driver.outcome(driver.submit(calls.nothing))
    assert "no more of this" in str(outcome.error)
    assert asked[0]


def test_signals_of_a_task_stay_in_its_session(drive: Drive) -> None:
    driver = drive(max_workers=1)
    outcome = driver.outcome(driver.submit(os.killpg, 0, signal.SIGTERM))
    assert outcome.verdict in (Verdict.LOST, Verdict.APP_ERROR)
    assert driver.outcome(driver.submit(calls.double, 3)).value == 6
