"""The listening port: whoever has no key of a block gets in nothing and gets out nothing."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from flow_core.errors import ConfigurationError, ExecutorError
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import HighThroughputExecutor
from flow_executors.testing.local_run import interchange_pid, make_executor, run_id_of
from flow_executors.wire.auth import BlockSecret
from flow_executors.wire.kinds import KNOWN_KINDS
from flow_executors.wire.messages import PeerInfo, pack_hello
from flow_executors.wire.transport import connect_locally

Drive = Callable[..., Driver]


def _port(driver: Driver) -> int:
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    return executor._runtime.port


def _server_key(driver: Driver) -> bytes:
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    return executor._runtime._server.public


@pytest.mark.parametrize("keys", ["none", "own", "plain"])
def test_without_a_blocks_key_nobody_is_answered(drive: Drive, network: dict[str, object], keys: str) -> None:
    driver = drive(**network)
    context = zmq.Context()
    try:
        stranger = context.socket(zmq.DEALER)
        stranger.linger = 0
        if keys != "none":
            public, secret = zmq.curve_keypair()
            stranger.curve_publickey, stranger.curve_secretkey = public, secret
            stranger.curve_serverkey = _server_key(driver) if keys == "own" else public
        stranger.connect(f"tcp://127.0.0.1:{_port(driver)}")
        with suppress(zmq.Again):  # refused before it could greet
            stranger.send(pack_hello(PeerInfo("manager", run_id_of(driver))), zmq.NOBLOCK)
        assert stranger.poll(700) == 0
    finally:
        context.destroy(0)
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


def test_noise_on_the_port_changes_nothing(drive: Drive, network: dict[str, object]) -> None:
    driver = drive(**network)
    driver.outcome(driver.submit(calls.nothing))
    interchange = interchange_pid(driver)
    before = _resident(interchange)
    for number in range(300):
        with socket.create_connection(("127.0.0.1", _port(driver))) as noise:
            try:
                noise.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f" + os.urandom(64 + number))
            except OSError:
                pass  # thrown out already
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    assert interchange_pid(driver) == interchange  # it was not replaced
    assert _resident(interchange) - before < 5_000


def test_noise_within_the_machine_changes_nothing(drive: Drive) -> None:
    driver = drive()
    driver.outcome(driver.submit(calls.nothing))
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    interchange = interchange_pid(driver)
    address, before = executor._runtime._site.local_address, _resident(interchange)
    for number in range(300):
        with connect_locally(address) as noise:
            try:
                noise.sendall((40).to_bytes(4, "little") + os.urandom(64 + number))
            except OSError:
                pass  # thrown out already
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    assert interchange_pid(driver) == interchange  # it was not replaced
    assert _resident(interchange) - before < 5_000


def _resident(pid: int) -> int:
    """Resident memory in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def test_no_key_is_on_any_command_line(drive: Drive) -> None:
    driver = drive()
    driver.outcome(driver.submit(calls.nothing))
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    secret = executor._runtime._server.secret
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if secret in line]


def test_ports_that_are_taken_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        driver = Driver(make_executor(worker_ports=(port,)), tmp_path / "ports", 30.0)
        with pytest.raises(ExecutorError, match=rf"{port}.*in use.*worker_ports"):
            driver.start()


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match="max_workers"):
        make_executor(max_workers="two")
    with pytest.raises(ConfigurationError, match="heartbeat_threshold"):
        make_executor(heartbeat_period=10, heartbeat_threshold=5)


def test_a_hundred_thousand_malformed_messages_of_a_manager_change_nothing(
    drive: Drive, network: dict[str, object]
) -> None:
    driver = drive(heartbeat_period=1, heartbeat_threshold=30, **network)
    driver.outcome(driver.submit(calls.nothing))
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    secret = BlockSecret.from_bytes(executor._runtime.order("mad").secrets[0][1])
    driver.outcome(driver.submit(calls.nothing))  # it goes the way of the new key, after it: the key is known now
    chance = random.Random(5)
    interchange = interchange_pid(driver)
    before = _resident(interchange)
    context = zmq.Context()
    try:
        mad = context.socket(zmq.DEALER)
        mad.linger = 0
        mad.sndtimeo = 20_000
        mad.curve_publickey, mad.curve_secretkey = secret.pair.public, secret.pair.secret
        mad.curve_serverkey = secret.server_public
        mad.connect(f"tcp://127.0.0.1:{_port(driver)}")
        hello = pack_hello(PeerInfo("manager", executor._runtime._context.run_id, "3.11.2"))
        kinds = bytes(KNOWN_KINDS)
        for number in range(100_000):
            noise = bytes((chance.choice(kinds),)) + chance.randbytes(chance.randrange(60))
            mad.send(noise if number % 100 else hello[: chance.randrange(1, len(hello))])
            while mad.poll(0):
                mad.recv()
        # It was hung up on, and what it had on the way is gone; by a new connection it is answered.
        for _ in range(20):
            mad.send(hello)
            if mad.poll(1_000):
                break
        else:
            pytest.fail("nothing answers any more")
    finally:
        context.destroy(0)
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    assert interchange_pid(driver) == interchange  # it was not replaced
    assert _resident(interchange) - before < 5_000
