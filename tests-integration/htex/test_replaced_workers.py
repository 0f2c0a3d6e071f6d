"""A worker that died is replaced: what ran on the new process says so, in its start and in its outcome."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Outcome, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import (
    PATIENCE_S,
    interchange_pid,
    make_executor,
    run_id_of,
    wait_gone,
    wait_until,
)
from flow_executors.testing.node import alive

MAKERS = {"htex": make_executor, "llex": make_direct_executor}


@pytest.fixture(params=MAKERS)
def driver(request: pytest.FixtureRequest, tmp_path: Path, way: dict[str, object]) -> Iterator[Driver]:
    """A started executor of two workers; at the end every key has one outcome and nothing is left."""
    make: Callable[..., Executor] = MAKERS[request.param]
    started = Driver(make(**way), tmp_path / "run", PATIENCE_S)
    started.start()
    yield started
    started.release()
    started.shutdown()
    started.check()
    wait_gone(run_id_of(started))


def pid_of(outcome: Outcome) -> int:
    """Return the pid that an outcome names, which must be that of the process that ran the task."""
    assert outcome.place is not None
    assert (outcome.verdict, outcome.place.pid) == (Verdict.OK, outcome.value)
    return outcome.place.pid


def pids(driver: Driver, tasks: int = 40) -> set[int]:
    """Run some tasks; return the pids of the workers that ran them."""
    return {pid_of(outcome) for outcome in driver.outcomes([driver.submit(os.getpid) for _ in range(tasks)])}


def kill_idle(driver: Driver) -> int:
    """Kill a worker that runs nothing, and return its pid once it is gone."""
    (pid, *_) = sorted(pids(driver))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "it did not die")
    return pid


def test_outcomes_name_the_process_that_ran_the_task(driver: Driver) -> None:
    killed = [kill_idle(driver) for _ in range(3)]
    loss = driver.outcome(driver.submit(calls.kill_self)).loss
    assert loss is not None
    assert loss.place is not None
    killed.append(loss.place.pid)
    assert len(set(killed)) == 4
    assert pids(driver).isdisjoint(killed)


def test_outcomes_of_a_rush_in_which_workers_die_name_their_own(driver: Driver) -> None:
    keys: list[TryKey] = []
    for _ in range(4):
        keys += [driver.submit(os.getpid) for _ in range(150)]
        keys.append(driver.submit(calls.kill_self))
    outcomes = driver.outcomes(keys)
    assert sum(outcome.verdict is Verdict.LOST for outcome in outcomes) == 4
    assert all(pid_of(outcome) for outcome in outcomes if outcome.verdict is Verdict.OK)
    dead = {outcome.loss.place.pid for outcome in outcomes if outcome.loss is not None and outcome.loss.place}
    assert len(dead) == 4
    assert pids(driver).isdisjoint(dead)


def test_starts_name_the_process_that_runs_the_task(driver: Driver) -> None:
    killed = [kill_idle(driver) for _ in range(2)]
    keys = [driver.hold(name) for name in ("one", "two")]
    assert driver.listener.wait_started(keys, PATIENCE_S)
    started = {driver.listener.starts[key][0][1].pid for key in keys}
    assert started.isdisjoint(killed)
    driver.release()
    outcomes = driver.outcomes(keys)
    assert {outcome.place.pid for outcome in outcomes if outcome.place} == started


@pytest.mark.parametrize("driver", ["htex"], indirect=True)
def test_a_new_interchange_is_told_of_replaced_workers(driver: Driver) -> None:
    killed = kill_idle(driver)
    assert killed not in pids(driver)
    os.kill(interchange_pid(driver), signal.SIGKILL)
    assert killed not in pids(driver)
