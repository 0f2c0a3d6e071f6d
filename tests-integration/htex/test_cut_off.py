"""A node that the network cuts off, and a disk that is full. Needs root: namespaces and a small file system."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import HighThroughputExecutor
from flow_executors.testing.local_run import wait_until
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and mounts need root"),
]
SPACE = "flowcut"
HERE, THERE = "10.213.77.1", "10.213.77.2"


def run(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, timeout=20, capture_output=True)


@pytest.fixture
def space() -> Iterator[str]:
    """Give a network namespace that reaches this machine over one cable."""
    subprocess.run(["ip", "netns", "del", SPACE], check=False, capture_output=True, timeout=20)
    try:
        run(f"ip netns add {SPACE}")
        run(f"ip link add flowcut0 type veth peer name flowcut1 netns {SPACE}")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    run(f"ip addr add {HERE}/24 dev flowcut0")
    run("ip link set flowcut0 up")
    run(f"ip netns exec {SPACE} ip addr add {THERE}/24 dev flowcut1")
    run(f"ip netns exec {SPACE} ip link set flowcut1 up")
    run(f"ip netns exec {SPACE} ip link set lo up")
    yield SPACE
    run(f"ip netns del {SPACE}")


def test_a_network_that_is_cut_for_several_thresholds_costs_time_and_no_task(drive: Drive, space: str) -> None:
    driver = drive(
        address=HERE,
        launch_cmd=f"ip netns exec {space} {{python}} -m flow_executors.manager {{options}}",
        provider=LocalProvider(max_blocks=1),
        heartbeat_threshold=1,
    )
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    scaler = executor._runtime.scaler
    assert scaler is not None
    run("ip link set flowcut0 down")
    try:
        wait_until(lambda: not executor.connected_managers(), "the cut was not noticed")
        keys = [driver.submit(calls.double, number) for number in range(3)]
        wait_until(lambda: scaler.attempts >= 2, "blocks that cannot reach the script were not replaced")
    finally:
        run("ip link set flowcut0 up")
    assert [driver.outcome(key).value for key in keys] == [0, 2, 4]


def test_a_node_cut_off_is_lost_by_silence_its_task_runs_elsewhere_and_it_leaves_when_it_is_back(
    drive: Drive, space: str
) -> None:
    driver = drive(
        address=HERE,
        launch_cmd=f"ip netns exec {space} {{python}} -m flow_executors.manager {{options}}",
        provider=LocalProvider(min_blocks=1, max_blocks=1),
        heartbeat_threshold=2,
    )
    key = driver.hold("task")
    driver.wait_held("task")
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    pid = executor.connected_managers()[0].pid
    run("ip link set flowcut0 down")
    try:
        outcome = driver.outcome(key)
    finally:
        run("ip link set flowcut0 up")
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.MANAGER
    assert "silent" in outcome.loss.reason
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it did not leave when it was back")
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 1 MB."""
    disk = tmp_path / "small"
    disk.mkdir()
    try:
        run(f"mount -t tmpfs -o size=1m tmpfs {disk}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no mounts here: {error}")
    yield disk
    run(f"umount -l {disk}")


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (disk / "filler").write_bytes(bytes(2 << 20))


def test_a_full_disk_under_the_logs_disturbs_no_task_that_does_not_write_there(drive: Drive, small_disk: Path) -> None:
    driver = drive(worker_logdir_root=str(small_disk))
    assert driver.outcome(driver.submit(calls.double, 1)).value == 2
    fill(small_disk)
    keys = [driver.submit(print, "a line of a task" * 1000) for _ in range(50)]
    for outcome in driver.outcomes(keys):  # who prints learns why it cannot
        assert outcome.verdict is Verdict.OK or "No space left" in str(outcome.error)
    keys = [driver.submit(calls.double, number) for number in range(100)]
    assert [outcome.value for outcome in driver.outcomes(keys)] == [2 * number for number in range(100)]


def test_a_full_disk_from_the_start_is_told_and_tasks_run(drive: Drive, small_disk: Path) -> None:
    fill(small_disk)
    driver = drive(worker_logdir_root=str(small_disk))
    outcome = driver.outcome(driver.submit(calls.double, 3))
    assert outcome.value == 6
