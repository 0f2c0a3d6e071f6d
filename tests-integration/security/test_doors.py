"""Another user of the machine at the doors of a run: it gets in nowhere, and holds nothing up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from security_attacker import FLOOD, Attacker

from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_executors.testing.local_run import PATIENCE_S, interchange_pid, make_executor
from flow_providers.local.provider import LocalProvider


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A HighThroughputExecutor with one block, and with heartbeats so short that a pause is taken for a death."""
    executor = make_executor(
        provider=LocalProvider(init_blocks=1, max_blocks=2), max_workers=1, heartbeat_period=1, heartbeat_threshold=5
    )
    made = Driver(executor, tmp_path / "run", PATIENCE_S)
    made.start()
    yield made
    made.release()
    made.shutdown()


@pytest.fixture(autouse=True)
def others() -> set[str]:
    """The doors of managers that are there before the test's own."""
    with open("/proc/net/unix") as sockets:
        return {name[1:] for name in (one.split()[-1] for one in sockets) if name.startswith("@flow-files-")}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_connections_of_strangers_without_end_hold_up_nobody(
    others: set[str], driver: Driver, attacker: Attacker
) -> None:
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    driver.outcome(driver.submit(calls.nothing))
    interchange = interchange_pid(driver)
    address = executor._runtime._site.local_address.removeprefix("local:")
    with open("/proc/net/unix") as sockets:
        files = {name[1:] for name in (one.split()[-1] for one in sockets) if name.startswith("@flow-files-")} - others
    assert len(files) == 1  # of the manager, for its workers
    floods = [attacker.start(FLOOD, door) for door in (address, address, *files)]
    try:
        for flood in floods:
            assert flood.stdout is not None
            assert flood.stdout.readline() == "begun\n"
        for number in range(500):
            assert driver.outcome(driver.submit(calls.double, number)).value == 2 * number
        (block,) = executor.scale_out(1)  # its manager comes through the crowd
        driver.poll(lambda: block in executor.connected_blocks(), "the new block joins")
        assert {flood.poll() for flood in floods} == {None}
    finally:
        for flood in floods:
            flood.kill()
            flood.communicate(timeout=30)
    assert interchange_pid(driver) == interchange  # it was not taken for dead
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
def test_no_port_is_open_while_the_provider_is_local(kind: type[HighThroughputExecutor], tmp_path: Path) -> None:
    def listening() -> set[object]:
        me = psutil.Process()
        here = [one for process in (me, *me.children(recursive=True)) for one in process.net_connections("inet")]
        return {one.laddr for one in here if one.status == "LISTEN"}

    before = listening()
    made = Driver(kind(provider=LocalProvider(init_blocks=1, max_blocks=1)), tmp_path / "run", PATIENCE_S)
    made.start()
    try:
        assert made.outcome(made.submit(calls.double, 2)).value == 4
        assert listening() == before
    finally:
        made.shutdown()


def test_an_address_that_is_given_is_the_only_one_that_is_listened_at(tmp_path: Path) -> None:
    own = [one.address for some in psutil.net_if_addrs().values() for one in some if one.family == socket.AF_INET]
    outside = [address for address in own if not address.startswith("127.")]
    if not outside:
        pytest.skip("this machine has no address but those of its loopback interface")
    executor = make_executor(max_workers=1, address=outside[0], worker_port_range=(50000, 60000))
    made = Driver(executor, tmp_path / "run", PATIENCE_S)
    made.start()
    try:
        assert made.outcome(made.submit(calls.double, 2)).value == 4
        me = psutil.Process()
        here = [one for process in (me, *me.children(recursive=True)) for one in process.net_connections("inet")]
        found = {one.laddr.ip for one in here if one.status == "LISTEN" and 50000 <= one.laddr.port < 60000}
        assert found == {outside[0]}
    finally:
        made.shutdown()
