"""A single result is told to the script by its manager itself: it comes early, once, and whatever dies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.interfaces.outcome import Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.client.client import Client
from flow_executors.htex import HighThroughputExecutor
from flow_executors.testing.local_run import Frozen, interchange_pid, manager_pid, wait_until
from flow_executors.wire.transport import connect_locally
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]
LATE = {"heartbeat_period": 30, "heartbeat_threshold": 120}
"""Nobody is replaced for being silent."""


def one(driver: Driver, number: int) -> None:
    """Run a task alone."""
    outcome = driver.outcome(driver.submit(calls.double, number))
    assert outcome.value == 2 * number
    assert outcome.place is not None
    assert outcome.place.pid
    assert 0 < outcome.started_ns <= outcome.ended_ns


def client_of(driver: Driver) -> Client:
    """Return the client of the executor."""
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    client = executor._runtime.client
    assert isinstance(client, Client)
    return client


def outstanding(driver: Driver) -> int:
    """Return how many tasks the interchange takes for unfinished."""
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    return sum(block.outstanding for block in client_of(driver).command("blocks").blocks)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_comes_while_the_interchange_sleeps_which_hears_of_it_later(drive: Drive, workers: int) -> None:
    driver = drive(max_workers=workers, **LATE)
    one(driver, 1)
    key = driver.hold("task")
    driver.wait_held("task")
    with Frozen(interchange_pid(driver)):
        driver.release("task")
        assert driver.outcome(key).verdict is Verdict.OK
    for number in range(20):
        one(driver, number)
    assert sorted(driver.listener.outcomes) == list(range(1, 23))
    client = client_of(driver)
    wait_until(lambda: client._receiver.dropped >= 20, "the interchange did not tell of them, too")
    wait_until(lambda: outstanding(driver) == 0, "the interchange takes some for unfinished")


def test_by_the_network_it_comes_by_the_interchange(drive: Drive, network: dict[str, object]) -> None:
    driver = drive(**network)
    for number in range(20):
        one(driver, number)
    assert client_of(driver)._receiver.dropped == 0


def test_what_was_told_stands_though_the_manager_dies_before_the_interchange_hears_of_it(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "killed"
    monkeypatch.setenv("FLOW_FAULT", f"manager.told:8:kill:file={mark}")
    driver = drive(provider=LocalProvider(min_blocks=1, max_blocks=1))
    for number in range(8):
        one(driver, number)
    wait_until(mark.exists, "the manager was not killed")
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    wait_until(lambda: not executor.connected_managers(), "its death was not noticed")
    for number in range(8):
        one(driver, number)
    wait_until(lambda: outstanding(driver) == 0, "the interchange takes some for unfinished")


def test_the_death_of_an_interchange_that_has_not_passed_it_on_changes_nothing(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "killed"
    monkeypatch.setenv("FLOW_FAULT", f"interchange.after_results:8:kill:file={mark}")
    driver = drive(**LATE)
    worker = manager_pid(driver)
    for number in range(30):
        one(driver, number)
    assert mark.exists()
    assert manager_pid(driver) == worker
    wait_until(lambda: outstanding(driver) == 0, "the interchange takes some for unfinished")


def test_where_the_script_lets_no_manager_in_it_comes_by_the_interchange(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow_executors.client.client._MOST_TELL", 0)
    driver = drive()
    for number in range(20):
        one(driver, number)


UNREADABLE = "type('Unreadable', (), {'__reduce__': lambda self: (int, ('no number',))})()"
"""Makes a value that can be packed, and not unpacked."""


@pytest.mark.parametrize(
    ("function", "argument", "verdict"),
    [
        (calls.fail, "said so", Verdict.APP_ERROR),
        (eval, UNREADABLE, Verdict.APP_ERROR),
        (eval, "list(range(1_000_000))", Verdict.OK),
    ],
    ids=["error", "unreadable", "large"],
)
def test_after_anything_else_they_are_told_as_before(
    drive: Drive, function: Callable[[str], object], argument: str, verdict: Verdict
) -> None:
    driver = drive(**LATE)
    one(driver, 1)
    assert driver.outcome(driver.submit(function, argument)).verdict is verdict
    key = driver.hold("task")
    driver.wait_held("task")
    with Frozen(interchange_pid(driver)):
        driver.release("task")
        assert driver.outcome(key).verdict is Verdict.OK


def test_noise_at_the_scripts_own_door_changes_nothing(drive: Drive) -> None:
    driver = drive()
    one(driver, 1)
    for number in range(300):
        with connect_locally(client_of(driver)._results) as noise:
            try:
                noise.sendall((40).to_bytes(4, "little") + os.urandom(64 + number))
            except OSError:
                pass  # thrown out already
    for number in range(20):
        one(driver, number)
