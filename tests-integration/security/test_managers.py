"""Somebody who has the key of a block, over a real socket: it is good for that block, and until its job is over."""

from __future__ import annotations

import os
import pickle
import platform
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from flow_core.interfaces.outcome import Verdict
from flow_core.observe.logging import open_run_log
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_executors.runtime import ExecutorRuntime
from flow_executors.testing.local_run import PATIENCE_S, interchange_pid, make_executor, manager_pid, run_id_of
from flow_executors.wire.auth import BlockSecret
from flow_executors.wire.commands import Command, pack_command
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    DrainMode,
    ExitCode,
    Heartbeat,
    ManagerLeft,
    PeerInfo,
    Registration,
    pack_cancel,
    pack_drain,
    pack_exit,
    pack_heartbeat,
    pack_hello,
    pack_left,
    pack_need,
    pack_notice,
    pack_register,
    unpack_drain,
    unpack_exit,
    unpack_welcome,
)
from flow_executors.wire.results import pack_results
from flow_executors.wire.tasks import unpack_tasks
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.local.provider import LocalProvider

NETWORK = "{python} -m {module} {debug} {options} --addresses=127.0.0.1"


class Rogue:
    """Speaks as a manager with the key of a block."""

    def __init__(self, driver: Driver, block: str, pair: bytes = b"", *, known: bool = False) -> None:
        """``pair``: the secret of the block, as it was read; else a new block is ordered, and made known."""
        self.runtime = _runtime(driver)
        self.block, self.run_id = block, run_id_of(driver)
        self.secret = BlockSecret.from_bytes(pair or self.runtime.order(block).secrets[0][1])
        if not known:
            driver.outcome(driver.submit(calls.nothing))  # it goes the way of the new key, after it
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.connect()

    def connect(self, port: int = 0) -> zmq.Socket[bytes]:
        made = self.context.socket(zmq.DEALER)
        made.linger = 0
        made.sndtimeo = 5_000  # a socket whose key was refused has no way out, and would wait for one without end
        made.curve_publickey, made.curve_secretkey = self.secret.pair.public, self.secret.pair.secret
        made.curve_serverkey = self.secret.server_public
        made.connect(f"tcp://127.0.0.1:{port or self.runtime.port}")
        self.greet(made)
        return made

    def greet(self, end: zmq.Socket[bytes]) -> None:
        with suppress(zmq.Again):  # refused before it could greet: then nothing answers either
            end.send(pack_hello(PeerInfo("manager", self.run_id, platform.python_version())))

    def connect_again(self) -> None:
        self.socket.close()
        self.socket = self.connect()

    def greeted(self) -> None:
        """Wait until an interchange has answered, which may just be starting."""
        self.until(Kind.HELLO)

    def offer(self, workers: int) -> None:
        """Register as a manager of its own, of so many workers."""
        offer = Registration("rogue", self.block, "node", 1, workers, 0, 1.0, python=platform.python_version())
        self.socket.send(pack_register(0, offer, ()))

    def register(self, name: str, number: int = 0, held: tuple[int, ...] = (), block: str = "") -> None:
        offer = Registration(name, block or self.block, "node", 1, 1, 0, 1.0, python=platform.python_version())
        self.socket.send(pack_register(number, offer, held))

    def until(self, kind: Kind, beat: bytes = b"") -> bytes:
        """Return the next message of a kind; send a sign of life five times a second."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.socket.poll(200):
                message = self.socket.recv()
                if message[0] == kind:
                    return message
            elif beat:
                self.socket.send(beat)
        raise AssertionError(f"no {kind.name} came")

    def close(self) -> None:
        self.context.destroy(0)


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The secrets of blocks, in the order in which they were made."""
    made: list[bytes] = []
    to_bytes = BlockSecret.to_bytes

    def noted(secret: BlockSecret) -> bytes:
        made.append(to_bytes(secret))
        return made[-1]

    monkeypatch.setattr(BlockSecret, "to_bytes", noted)
    return made


@pytest.fixture
def driver(tmp_path: Path, ordered: list[bytes]) -> Iterator[Driver]:
    """One worker, whose manager comes by the network."""
    made = Driver(make_executor(max_workers=1, launch_cmd=NETWORK), tmp_path / "run", PATIENCE_S)
    made.start()
    yield made
    made.release()
    made.shutdown()
    made.check()


@pytest.fixture
def rogue(driver: Driver) -> Iterator[Rogue]:
    made = Rogue(driver, "stolen")
    yield made
    made.close()


@pytest.fixture
def sibling(driver: Driver, ordered: list[bytes]) -> Iterator[Rogue]:
    """Somebody who has the key of the block whose manager has the tasks."""
    driver.outcome(driver.submit(calls.nothing))
    (true,) = _managers(driver).values()
    made = Rogue(driver, true.block, ordered[0])
    yield made
    made.close()


def _managers(driver: Driver) -> dict[int, Registration]:
    return dict(_runtime(driver).client.directory.managers)


def _runtime(driver: Driver) -> ExecutorRuntime:
    assert isinstance(driver.executor, (HighThroughputExecutor, LowLatencyExecutor))
    assert driver.executor._runtime is not None
    return driver.executor._runtime


def test_a_key_is_good_for_its_block_alone(driver: Driver, rogue: Rogue) -> None:
    (number, true), *_ = rogue.runtime.client.directory.managers.items()
    rogue.register(true.manager_id, number, block=true.block)
    reason = unpack_exit(rogue.until(Kind.EXIT))[1]
    assert "its key is that of block stolen" in reason
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    assert list(rogue.runtime.client.directory.managers.values()) == [true]


def test_who_calls_itself_as_another_manager_gets_neither_its_place_nor_its_tasks(driver: Driver, rogue: Rogue) -> None:
    running = driver.hold("theirs")
    driver.wait_held("theirs")
    (number, true), *_ = rogue.runtime.client.directory.managers.items()
    rogue.register(true.manager_id, number)
    mine = unpack_welcome(rogue.until(Kind.WELCOME)).manager
    assert mine != number
    for name in (number, mine):  # in the other's name it is not heard, and in its own it does not have that task
        rogue.socket.send(pack_results(name, 1, 0, [running], [0], [0], [0], bytes([Verdict.OK]), [b""]))
    code, reason = unpack_exit(rogue.until(Kind.EXIT))
    assert (code, reason) == (ExitCode.DECLARED_LOST, "it sent results of tasks that other managers have")
    driver.release("theirs")
    outcome = driver.outcome(running)
    assert (outcome.verdict, outcome.value, outcome.place.block) == (Verdict.OK, "theirs", true.block)


def test_who_has_the_key_of_a_block_does_not_become_another_manager_of_it(driver: Driver, sibling: Rogue) -> None:
    running = driver.hold("theirs")
    driver.wait_held("theirs")
    (number, true), *_ = _managers(driver).items()
    sibling.register(true.manager_id, number, held=(running,))
    code, reason = unpack_exit(sibling.until(Kind.EXIT))
    assert (code, reason) == (ExitCode.DECLARED_LOST, "it holds tasks that this interchange never gave it")
    sibling.connect_again()
    sibling.register(true.manager_id, number)
    mine = unpack_welcome(sibling.until(Kind.WELCOME)).manager
    assert mine != number
    driver.poll(lambda: len(_managers(driver)) == 2, "the other one is told of")
    assert _managers(driver)[mine].manager_id == f"{true.manager_id}#{mine}"
    sibling.socket.send(pack_results(mine, 1, 0, [running], [0], [0], [0], bytes([Verdict.OK]), [b""]))
    assert unpack_exit(sibling.until(Kind.EXIT))[0] is ExitCode.DECLARED_LOST
    driver.release("theirs")
    outcome = driver.outcome(running)
    assert (outcome.verdict, outcome.value, outcome.place.manager) == (Verdict.OK, "theirs", true.manager_id)


class ToldHosts(LocalProvider):
    """Tells on which nodes its jobs run, as schedulers of clusters do."""

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        return [replace(status, nodes=(socket.gethostname(),)) for status in super().status(job_ids)]


@pytest.fixture
def told(tmp_path: Path, ordered: list[bytes]) -> Iterator[Driver]:
    provider = ToldHosts(init_blocks=1, max_blocks=1)
    executor = make_executor(max_workers=1, launch_cmd=NETWORK, provider=provider, poll_period=1)
    made = Driver(executor, tmp_path / "run", PATIENCE_S)
    made.start()
    yield made
    made.release()
    made.shutdown()
    made.check()


def test_a_manager_on_a_host_that_is_none_of_its_jobs_is_warned_of_with_its_address(
    told: Driver, ordered: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    told.outcome(told.submit(calls.nothing))
    (true,) = _managers(told).values()
    thief = Rogue(told, true.block, ordered[0])
    try:
        offer = Registration("thief", true.block, "elsewhere", 1, 1, address="10.1.2.3")  # its word is not taken
        thief.socket.send(pack_register(0, offer, ()))
        thief.until(Kind.WELCOME)
        told.poll(lambda: "says that it runs on elsewhere" in caplog.text, "a warning")
    finally:
        thief.close()
    (warning,) = [record for record in caplog.records if "is none of its job's nodes" in record.getMessage()]
    assert warning.levelname == "WARNING"
    assert "manager thief" in warning.getMessage()
    assert "(its connection comes from 127.0.0.1)" in warning.getMessage()
    assert "10.1.2.3" not in caplog.text


@pytest.fixture
def counted(tmp_path: Path, ordered: list[bytes]) -> Iterator[Driver]:
    """A block of one node, whose managers Flow itself starts; a port is open, too."""
    made = Driver(make_executor(max_workers=1, worker_port_range=(50000, 60000)), tmp_path / "run", PATIENCE_S)
    made.start()
    yield made
    made.release()
    made.shutdown()
    made.check()


def test_who_has_the_key_of_a_block_does_not_come_as_one_manager_more(
    counted: Driver, ordered: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    counted.outcome(counted.submit(calls.nothing))
    ((number, true),) = _managers(counted).items()
    thief = Rogue(counted, true.block, ordered[0])
    try:
        for name in ("thief", true.manager_id):
            thief.register(name, number)
            code, reason = unpack_exit(thief.until(Kind.EXIT))
            assert code is ExitCode.REFUSED
            assert f"{name} on node has the key of a block whose 1 place is taken by {true.manager_id}" in reason
            assert "it came from 127.0.0.1" in reason
            thief.connect_again()
    finally:
        thief.close()
    counted.poll(lambda: "thief on node has the key" in caplog.text, "a warning names who came")
    assert [r.levelname for r in caplog.records if "thief on node" in r.getMessage()] == ["WARNING"]
    assert counted.outcome(counted.submit(calls.double, 2)).value == 4
    assert list(_managers(counted)) == [number]


@pytest.fixture
def late(tmp_path: Path, ordered: list[bytes]) -> Iterator[tuple[Driver, Path]]:
    """A block whose manager waits until a file is there, so that somebody with its key can come before it."""
    gate = tmp_path / "gate"
    provider = LocalProvider(init_blocks=1, max_blocks=1, worker_init=f"while ! test -e {gate}; do sleep 0.1; done")
    executor = make_executor(
        max_workers=1, worker_port_range=(50000, 60000), provider=provider, heartbeat_threshold=2, poll_period=1
    )
    made = Driver(executor, tmp_path / "run", PATIENCE_S)
    made.start()
    yield made, gate
    gate.touch()
    made.release()
    made.shutdown()
    made.check()


@pytest.mark.slow
def test_who_comes_first_with_a_stolen_key_loses_its_tasks_when_the_job_is_over(
    late: tuple[Driver, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The job's own manager is refused, and that is said; its job is over then, and with it the key."""
    driver, gate = late
    key = driver.submit(calls.double, 2)
    driver.poll(lambda: any(tmp_path.rglob("flow_block_key")), "the job waits")
    (found,) = tmp_path.rglob("flow_block_key")
    thief = Rogue(driver, "0", found.read_bytes(), known=True)
    try:
        thief.greeted()
        thief.offer(workers=1)
        number = unpack_welcome(thief.until(Kind.WELCOME)).manager
        beat = pack_heartbeat(Heartbeat(number, 0, 0))
        while key not in unpack_tasks(thief.until(Kind.TASKS, beat)).keys:
            pass
        gate.touch()
        code, _ = unpack_exit(thief.until(Kind.EXIT, beat))
        assert code is ExitCode.DECLARED_LOST
    finally:
        thief.close()
    assert "has the key of a block whose 1 place is taken by rogue on node" in caplog.text
    assert driver.outcome(key).verdict is Verdict.LOST
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4  # by the next block, whose key is another


def test_a_manager_that_comes_again_after_a_break_or_a_restart_is_taken_for_itself(
    driver: Driver, sibling: Rogue
) -> None:
    """What it shows is good for the next interchange, too; another one of its block has nothing to show."""
    running = driver.hold("theirs")
    driver.wait_held("theirs")
    (number, true), *_ = _managers(driver).items()
    os.kill(interchange_pid(driver), signal.SIGKILL)
    sibling.connect_again()
    sibling.greeted()
    sibling.register(true.manager_id, number, held=(running,))
    assert unpack_exit(sibling.until(Kind.EXIT))[0] is ExitCode.DECLARED_LOST
    sibling.greet(sibling.socket)
    sibling.register(true.manager_id)
    assert unpack_welcome(sibling.until(Kind.WELCOME)).manager != number
    driver.release("theirs")
    outcome = driver.outcome(running)
    assert (outcome.verdict, outcome.value) == (Verdict.OK, "theirs")
    assert number in _managers(driver)
    assert outcome.place.manager == _managers(driver)[number].manager_id


def test_a_result_of_a_task_that_no_manager_has_yet_is_not_taken(driver: Driver, sibling: Rogue) -> None:
    driver.hold("theirs")
    driver.wait_held("theirs")
    sibling.offer(workers=0)
    mine = unpack_welcome(sibling.until(Kind.WELCOME)).manager
    waiting = [driver.submit(calls.double, number) for number in range(2000)]  # more than are handed out at once
    keys = waiting[1000:]
    zeros, values = [0] * len(keys), [pickle.dumps("forged")] * len(keys)
    message = pack_results(mine, 1, 0, keys, zeros, zeros, zeros, bytes([Verdict.OK]) * len(keys), values)
    sibling.socket.send(message)
    driver.release("theirs")
    assert [outcome.value for outcome in driver.outcomes(waiting)] == [2 * number for number in range(2000)]


def test_who_says_that_it_holds_the_task_of_another_is_sent_away(driver: Driver, rogue: Rogue) -> None:
    running = driver.hold("theirs")
    driver.wait_held("theirs")
    rogue.register("rogue", held=(running,))
    assert unpack_exit(rogue.until(Kind.EXIT))[0] is ExitCode.DECLARED_LOST
    driver.release("theirs")
    assert driver.outcome(running).verdict is Verdict.OK


LIES = "x\n2026-01-01 00:00:00.000 flow.kernel:1 [INFO] all is well\r\x1b[2J\u2028"


def test_what_a_manager_calls_itself_looks_like_no_line_of_a_log_and_orders_no_terminal(
    driver: Driver, rogue: Rogue, tmp_path: Path
) -> None:
    log = open_run_log(tmp_path)
    try:
        offer = Registration(LIES, "stolen", LIES, 1, 1, 0, 1.0, python=LIES)
        rogue.socket.send(pack_register(0, offer, ()))
        mine = unpack_welcome(rogue.until(Kind.WELCOME)).manager
        rogue.socket.send(pack_notice(mine, LIES))
        rogue.socket.send(pack_exit(ExitCode.REFUSED, LIES))
        driver.poll(lambda: len(_managers(driver)) == 1, "the rogue has left")
        (interchange,) = tmp_path.rglob("interchange.log")
        for text in (log.path.read_text(), interchange.read_text()):
            assert "all is well" in text
            for line in text.splitlines():
                assert not line.startswith("2026-01-01 00:00:00")
                assert line.isprintable()
    finally:
        log.close()


FLOODS = {
    "questions": lambda number: pack_need([os.urandom(16) for _ in range(1000)]),
    "lines for the log": lambda number: pack_notice(number, "x" * 400),
    "signs of life": lambda number: pack_heartbeat(Heartbeat(number, 0, 0)),
    "late results": lambda number: pack_results(
        number, 1, 0, range(10**6, 10**6 + 500), [0] * 500, [0] * 500, [0] * 500, bytes(500), [b"x"] * 500
    ),
}


def _flooded(driver: Driver, rogue: Rogue, what: str, deadline: float) -> tuple[ExitCode, str]:
    """Flood until the manager is not heard any more; return what it is told when it comes again."""
    rogue.offer(workers=0)
    mine = unpack_welcome(rogue.until(Kind.WELCOME)).manager
    while mine in _managers(driver):
        assert time.monotonic() < deadline, "it is still heard"
        try:
            rogue.socket.send(FLOODS[what](mine), zmq.NOBLOCK)
        except zmq.Again:
            time.sleep(0.001)
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    rogue.connect_again()
    rogue.offer(workers=1)
    return unpack_exit(rogue.until(Kind.EXIT))


@pytest.mark.parametrize("what", FLOODS)
def test_a_manager_that_talks_without_end_is_hung_up_on_and_its_key_opens_nothing(
    driver: Driver, rogue: Rogue, what: str
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    code, reason = _flooded(driver, rogue, what, deadline)
    while code is not ExitCode.REFUSED:  # on a busy machine its connection may break by itself before
        assert time.monotonic() < deadline, f"it is not refused, but {code.name}: {reason}"
        rogue.connect_again()
        code, reason = _flooded(driver, rogue, what, deadline)
    assert "beside results" in reason
    assert len(_managers(driver)) == 1


NONSENSE = (
    b"",
    b"\xff" * 10,
    b'{"kind":99}',
    b"\x80\x05N.",
    b"[" * 50_000,
    b"\x00" * 40,
    b'{"kind":1,"reason":"\\n\\u001b"}',
)
TIMES = ((0, 0, 0), ((1 << 63) - 1, -(1 << 63), 65535), (-(1 << 63), (1 << 63) - 1, 7))


def test_results_that_are_nonsense_are_outcomes_and_stop_nothing(driver: Driver, rogue: Rogue) -> None:
    driver.hold("theirs")  # the only worker of the other manager: the rest goes to the rogue
    driver.wait_held("theirs")
    rogue.offer(workers=1)
    mine = unpack_welcome(rogue.until(Kind.WELCOME)).manager
    sequence = 0
    for status in (*Verdict, 99, 255):
        for payload in NONSENSE:
            for offset, started, worker in TIMES:
                sequence += 1
                key = driver.submit(calls.double, 2)
                while key not in unpack_tasks(rogue.until(Kind.TASKS, pack_heartbeat(Heartbeat(mine, 0, 0)))).keys:
                    pass
                status_of = bytes([status])
                rogue.socket.send(
                    pack_results(mine, sequence, offset, [key], [started], [offset], [worker], status_of, [payload])
                )
                outcome = driver.outcome(key)
                assert outcome.verdict is not Verdict.OK or outcome.value is None
    driver.release("theirs")
    assert mine in _managers(driver)


IMPOSSIBLE: dict[str, object] = {
    "cpu_count": 10**30,
    "memory_bytes": -(10**30),
    "pid": -(10**30),
    "ends_at_ns": 10**30,
    "memory_mb": 10**30,
    "worker_pids": (10**30,),
    "manager_id": "x" * 10_000,
    "node": "x" * 10_000,
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_offer_of_what_no_machine_has_is_not_taken(driver: Driver, rogue: Rogue, what: str) -> None:
    offer = Registration("rogue", "stolen", "node", 1, 1, 0, 1.0, python=platform.python_version())
    rogue.socket.send(pack_register(0, replace(offer, **{what: IMPOSSIBLE[what]}), ()))
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    rogue.register("another")  # on the same connection, so it comes after
    rogue.until(Kind.WELCOME)
    driver.poll(lambda: len(_managers(driver)) == 2, "the possible one is there")
    assert {one.manager_id for one in _managers(driver).values()} > {"another"}


def test_what_managers_are_told_is_not_taken_from_one(driver: Driver, rogue: Rogue) -> None:
    running = driver.hold("theirs")
    driver.wait_held("theirs")
    (number, true), *_ = rogue.runtime.client.directory.managers.items()
    rogue.register("rogue")
    rogue.until(Kind.WELCOME)
    for message in (
        pack_left(ManagerLeft(number, true.manager_id, true.block, true.node, "gone", True)),
        pack_cancel([running], True),
        pack_drain(DrainMode.DRAIN),
        pack_command(Command(1, "drain", blocks=(true.block,))),
        pack_exit(ExitCode.DONE, "the run is over"),  # which ends itself alone
    ):
        rogue.socket.send(message)
    driver.poll(lambda: len(rogue.runtime.client.directory.managers) == 1, "the rogue has left")
    driver.release("theirs")
    assert driver.outcome(running).verdict is Verdict.OK
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


@pytest.mark.slow
@pytest.mark.parametrize("end", ["scaled in", "killed"])
def test_the_key_of_a_block_whose_job_has_ended_opens_nothing(driver: Driver, sibling: Rogue, end: str) -> None:
    before = {offer.block for offer in _managers(driver).values()}
    assert isinstance(driver.executor, HighThroughputExecutor)
    if end == "scaled in":
        driver.executor.scale_in(1)
    else:
        os.kill(manager_pid(driver), signal.SIGKILL)
    driver.poll(lambda: before.isdisjoint(offer.block for offer in _managers(driver).values()), "the block is gone")
    if end == "scaled in":
        driver.executor.scale_out(1)
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4  # of the next block, whose key is known after

    def is_shut() -> bool:
        again = sibling.connect()
        try:
            return again.poll(1000) == 0
        finally:
            again.close()

    driver.poll(is_shut, "the key is revoked")


@pytest.fixture
def direct(tmp_path: Path, ordered: list[bytes]) -> Iterator[Driver]:
    """A LowLatencyExecutor of one worker, whose manager comes by the network."""
    provider = LocalProvider(init_blocks=1, max_blocks=1)
    made = Driver(
        LowLatencyExecutor(provider=provider, max_workers=1, launch_cmd=NETWORK), tmp_path / "run", PATIENCE_S
    )
    made.start()
    yield made
    made.release()
    made.shutdown()
    made.check()


def test_the_managers_of_a_low_latency_executor_are_told_apart_too(direct: Driver, ordered: list[bytes]) -> None:
    running = direct.hold("theirs")
    direct.wait_held("theirs")
    (number, true), *_ = _managers(direct).items()
    rogue = Rogue(direct, true.block, ordered[0], known=True)
    try:
        rogue.register(true.manager_id, number)
        mine = unpack_welcome(rogue.until(Kind.WELCOME)).manager
        assert mine != number
        rogue.socket.send(pack_results(mine, 1, 0, [running], [0], [0], [0], bytes([Verdict.OK]), [b""]))
        assert unpack_exit(rogue.until(Kind.EXIT))[0] is ExitCode.DECLARED_LOST
    finally:
        rogue.close()
    direct.release("theirs")
    assert direct.outcome(running).value == "theirs"


@pytest.mark.slow
def test_a_revoked_key_opens_nothing_and_a_kept_connection_is_sent_away(driver: Driver, rogue: Rogue) -> None:
    rogue.register("rogue")
    mine = unpack_welcome(rogue.until(Kind.WELCOME)).manager
    rogue.runtime.dismiss("stolen")
    assert unpack_drain(rogue.until(Kind.DRAIN)) is DrainMode.DRAIN
    key = driver.submit(calls.double, 2)  # nothing of it goes there any more
    assert driver.outcome(key).value == 4
    code, reason = unpack_exit(rogue.until(Kind.EXIT, beat=pack_heartbeat(Heartbeat(mine, 0, 0))))
    assert (code, "revoked" in reason) == (ExitCode.DONE, True)
    rogue.greet(rogue.socket)
    rogue.register("rogue", mine)
    assert unpack_exit(rogue.until(Kind.EXIT)) == (ExitCode.REFUSED, "block stolen was given up")
    again = rogue.connect()
    assert again.poll(1500) == 0
    again.close()
    assert list(rogue.runtime.client.directory.managers) != [mine]


def test_messages_of_another_connection_cannot_be_sent_again(driver: Driver, rogue: Rogue) -> None:
    """What was recorded of an encrypted connection is noise on another: each has keys of its own."""
    with socket.create_server(("127.0.0.1", 0)) as relay:
        recorded = threading.Thread(target=_relay, args=(relay, rogue.runtime.port, taken := []), daemon=True)
        recorded.start()
        through = rogue.connect(relay.getsockname()[1])
        assert through.poll(20_000)  # HELLO came back
        through.close()
        recorded.join(20)
    (number, _), *_ = rogue.runtime.client.directory.managers.items()
    with socket.create_connection(("127.0.0.1", rogue.runtime.port), 20) as again:
        again.sendall(b"".join(taken))
        answers = b""
        try:
            while part := again.recv(4096):
                answers += part
        except (TimeoutError, ConnectionError):
            pass
    assert b"MESSAGE" not in answers  # a greeting and a WELCOME at most: never a message
    assert list(rogue.runtime.client.directory.managers) == [number]


def _relay(listener: socket.socket, port: int, taken: list[bytes]) -> None:
    """Carry one connection, and record what the one who calls says."""
    one, _ = listener.accept()
    with one, socket.create_connection(("127.0.0.1", port)) as other:
        while True:
            for end in select.select((one, other), (), (), 20)[0]:
                data = end.recv(65536)
                if not data:
                    return
                if end is one:
                    taken.append(data)
                (other if end is one else one).sendall(data)
