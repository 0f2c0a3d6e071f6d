"""What 10,000 no-op tasks cost in messages, bytes and wake-ups, and what no task costs: counters, not times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.interfaces.executor import Executor
from flow_core.testing.driver import Driver
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import PATIENCE_S, make_executor, processes_of, run_id_of, wait_gone

Drive = Callable[..., Driver]

TASKS = 10_000
WATCHED_S = 2.0
WAVE = 1_000


def nothing() -> None:
    """Do nothing."""


def switches(pid: int) -> int:
    """How often the threads of a process went to sleep by themselves."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        count += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return count


@pytest.mark.timeout(120)
def test_ten_thousand_tasks_travel_in_few_messages_and_wake_nobody_often(drive: Drive) -> None:
    driver = drive()
    driver.outcomes([driver.submit(nothing) for _ in range(WAVE)])  # the pace is known by now
    runtime = driver.executor._runtime  # type: ignore[attr-defined]
    processes = {
        "interchange": runtime.client.incarnation.process.pid,
        "manager": runtime.client.directory.managers.copy().popitem()[1].pid,
    }
    before, slept = runtime.client.counters, {name: switches(pid) for name, pid in processes.items()}
    for _ in range(TASKS // WAVE):
        driver.outcomes([driver.submit(nothing) for _ in range(WAVE)])
    after = runtime.client.counters
    a_task = {
        "messages out": (after.messages_out - before.messages_out) / TASKS,
        "bytes out": (after.bytes_out - before.bytes_out) / TASKS,
        "messages in": (after.messages_in - before.messages_in) / TASKS,
        "bytes in": (after.bytes_in - before.bytes_in) / TASKS,
        "receiver's wake-ups": (after.wakeups - before.wakeups) / TASKS,
        **{f"{name}'s sleeps": (switches(pid) - slept[name]) / TASKS for name, pid in processes.items()},
    }
    bounds = {
        "messages out": 0.5,
        "bytes out": 80,
        "messages in": 0.3,
        "bytes in": 80,
        "receiver's wake-ups": 0.5,
        "interchange's sleeps": 1.0,
        "manager's sleeps": 1.5,
    }
    assert {name: value for name, value in a_task.items() if value > bounds[name]} == {}, a_task


@pytest.mark.parametrize("make", [make_executor, make_direct_executor])
def test_whoever_has_nothing_to_do_sleeps(tmp_path: Path, make: Callable[..., Executor]) -> None:
    driver = Driver(make(heartbeat_period=30, heartbeat_threshold=120), tmp_path / "run", PATIENCE_S)
    driver.start()
    try:
        driver.outcomes([driver.submit(nothing) for _ in range(WAVE)])
        time.sleep(1.5)  # a second after results managers tell what runs for longer
        before = {pid: switches(pid) for pid in processes_of(run_id_of(driver))}
        time.sleep(WATCHED_S)
        woken = {pid: switches(pid) - count for pid, count in before.items()}
        names = processes_of(run_id_of(driver))
        assert woken
        assert {names[pid]: count for pid, count in woken.items() if count > 10 * WATCHED_S} == {}
    finally:
        driver.shutdown()
        wait_gone(run_id_of(driver))
