"""LowLatencyExecutor: whatever dies, each task has one outcome that says what happened, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from flow_core.errors import ExecutorBroken, ExecutorClosed, ExecutorError
from flow_core.interfaces.call import Call, TaskSpec
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_core.testing.recording import run_id_in
from flow_executors import LowLatencyExecutor
from flow_executors.direct import client as direct_client
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import (
    manager_pid,
    processes_of,
    run_id_of,
    wait_gone,
    wait_until,
)
from flow_executors.wire.messages import PeerInfo, pack_hello
from flow_executors.worker.packets import PACKET
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]


@pytest.fixture
def drive(drive_direct: Drive) -> Drive:
    """Give a function that starts an executor."""
    return drive_direct


def _executor(driver: Driver) -> LowLatencyExecutor:
    assert isinstance(driver.executor, LowLatencyExecutor)
    return driver.executor


def _executor_port(driver: Driver) -> int:
    runtime = _executor(driver)._runtime
    assert runtime is not None
    return runtime.port


# -- workers


def test_a_killed_worker_is_named_with_its_signal_and_another_takes_its_place(drive: Drive) -> None:
    driver = drive()
    loss = driver.outcome(driver.submit(calls.kill_self)).loss
    assert loss is not None
    assert (loss.kind, loss.signal) == (LossKind.WORKER, signal.SIGKILL)
    assert driver.outcomes([driver.submit(calls.double, 4) for _ in range(4)])[3].value == 8


def test_a_worker_that_exits_is_named_with_its_code_and_its_last_words(drive: Drive) -> None:
    driver = drive()
    loss = driver.outcome(driver.submit(os.system, "echo last words >&2; kill -9 $PPID")).loss
    assert loss is not None
    assert "last words" in loss.stderr_tail
    loss = driver.outcome(driver.submit(os._exit, 7)).loss
    assert loss is not None
    assert loss.exit_code == 7


# -- managers


def test_a_killed_manager_is_noticed_by_its_connection(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(heartbeat_period=30, heartbeat_threshold=120, **way)
    key = driver.hold("task")
    driver.wait_held("task")
    os.kill(manager_pid(driver), signal.SIGKILL)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.MANAGER
    assert "connection broke" in outcome.loss.reason
    assert outcome.place is not None
    assert outcome.place.node


@pytest.mark.parametrize("stage", ["manager.after_recv", "manager.worker_frames", "manager.before_send"])
def test_tasks_of_a_manager_that_dies_are_lost_and_the_rest_runs_in_the_next_block(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, way: dict[str, object]
) -> None:
    monkeypatch.setenv("FLOW_FAULT", f"{stage}:8:kill:file={tmp_path / 'killed'}")
    driver = drive(**way)
    large = "x" * PACKET  # so that they pass through the manager
    outcomes = driver.outcomes([driver.submit(calls.double, large) for _ in range(200)])  # type: ignore[arg-type]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK, Verdict.LOST}


def test_a_frozen_manager_is_lost_by_silence_and_leaves_when_it_wakes(drive: Drive) -> None:
    driver = drive(heartbeat_threshold=1)
    key = driver.hold("task")
    driver.wait_held("task")
    pid = manager_pid(driver)
    os.kill(pid, signal.SIGSTOP)
    try:
        outcome = driver.outcome(key)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert "silent" in outcome.loss.reason
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it did not leave")


def test_a_job_that_exits_at_once_gives_its_own_words_to_all_tasks(drive: Drive) -> None:
    driver = drive(launch_cmd="echo no such module >&2; exit 7 #")
    outcome = driver.outcome(driver.submit(calls.nothing))
    assert outcome.verdict is Verdict.REFUSED
    assert isinstance(outcome.error, ExecutorBroken)
    assert "no such module" in str(outcome.error)
    again = driver.outcome(driver.submit(calls.nothing))  # a fresh attempt, with the same end
    assert isinstance(again.error, ExecutorBroken)
    assert "block 1" in str(again.error)


# -- the script

_SCRIPT = """
import sys, time
from pathlib import Path
from flow_core.testing.driver import Driver
from flow_core.testing.recording import run_id_in
from flow_executors.testing.direct_run import make_direct_executor
driver = Driver(make_direct_executor(), Path(sys.argv[1]), 30.0)
driver.start()
driver.hold("task")
driver.wait_held("task")
{then}
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("then", ["", "import os; child = os.fork(); child or time.sleep(60)"], ids=["alone", "forked"])
def test_all_processes_end_with_a_script_killed_by_sigkill(tmp_path: Path, then: str) -> None:
    directory = tmp_path / "killed-direct"
    command = [sys.executable, "-c", _SCRIPT.format(then=then), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        run_id = run_id_in(directory)
        managers = [pid for pid, words in processes_of(run_id).items() if "flow_executors.direct" in words]
        assert managers
        script.send_signal(signal.SIGKILL)
        script.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in managers), "managers are left", 20)
        os.killpg(script.pid, signal.SIGKILL) if then else None
    wait_gone(run_id)


def test_a_forked_child_has_no_executor_and_does_the_parent_no_harm(drive: Drive) -> None:
    driver = drive()
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    child = os.fork()
    if not child:
        try:
            driver.submit(calls.nothing)
        except ExecutorClosed:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


# -- cancelling, classes, blocks


def test_what_waits_is_cancelled_and_what_runs_is_killed_on_demand(drive: Drive) -> None:
    driver = drive(max_workers=1)
    running = driver.hold("running")
    driver.wait_held("running")
    waiting = driver.submit(calls.nothing)
    (queued, limit) = driver.executor.why_waiting(waiting)
    assert queued.text == "no task is ahead of it in the queue, 1 of 1 worker of 'llex' busy"
    assert "as many blocks as it may have" in limit.text
    driver.executor.cancel([waiting])
    assert driver.outcome(waiting).verdict is Verdict.CANCELLED
    driver.executor.cancel([running], kill=True)
    assert driver.outcome(running).verdict is Verdict.CANCELLED
    assert driver.outcome(driver.submit(calls.double, 1)).value == 2


def test_a_task_of_a_class_of_its_own_runs_between_the_others(drive: Drive) -> None:
    driver = drive()
    spec = TaskSpec(priority=3, environment=(("COLOUR", "green"),))
    key = driver.submit_call(Call(os.getenv, ("COLOUR",), spec=spec))
    assert driver.outcome(key).value == "green"
    large = driver.outcome(driver.submit(calls.echo, b"x" * (1 << 20))).value
    assert large == ((b"x" * (1 << 20),), {})


def test_there_are_the_first_blocks_and_no_others(drive: Drive) -> None:
    driver = drive(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=5))
    executor = _executor(driver)
    wait_until(lambda: len(executor.connected_blocks()) == 2, "two blocks did not connect")
    driver.outcomes([driver.submit(calls.double, number) for number in range(300)])
    assert sorted(executor.status()) == ["0", "1"]
    assert executor.scale_in(1, timeout_s=20)
    wait_until(lambda: len(executor.connected_blocks()) == 1, "the block did not leave")
    assert driver.outcome(driver.submit(calls.double, 3)).value == 6


# -- doors


@pytest.mark.parametrize("keys", ["none", "own"])
def test_without_a_blocks_key_nobody_is_answered(drive: Drive, network: dict[str, object], keys: str) -> None:
    driver = drive(**network)
    driver.outcome(driver.submit(calls.nothing))
    runtime = _executor(driver)._runtime
    assert runtime is not None
    context = zmq.Context()
    try:
        stranger = context.socket(zmq.DEALER)
        stranger.linger = 0
        if keys == "own":
            stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
            stranger.curve_serverkey = runtime._server.public
        stranger.connect(f"tcp://127.0.0.1:{_executor_port(driver)}")
        with suppress(zmq.Again):  # refused before it could greet
            stranger.send(pack_hello(PeerInfo("manager", run_id_of(driver))), zmq.NOBLOCK)
        assert stranger.poll(700) == 0
    finally:
        context.destroy(0)
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


def test_noise_on_the_port_changes_nothing(drive: Drive, network: dict[str, object]) -> None:
    driver = drive(**network)
    driver.outcome(driver.submit(calls.nothing))
    for number in range(100):
        with socket.create_connection(("127.0.0.1", _executor_port(driver))) as noise:
            try:
                noise.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f" + os.urandom(64 + number))
            except OSError:
                pass  # thrown out already
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


def test_ports_that_are_taken_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        driver = Driver(make_direct_executor(worker_ports=(port,)), tmp_path / "ports", 30.0)
        with pytest.raises(ExecutorError, match=rf"{port}.*in use.*worker_ports"):
            driver.start()


# -- errors of its own


def test_an_internal_error_costs_the_tasks_that_are_out_and_a_later_call_makes_a_fresh_attempt(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_client, "RESUME_AFTER_S", 0.2)
    driver = drive()
    assert driver.outcome(driver.submit(calls.double, 3)).value == 6
    runtime = _executor(driver)._runtime
    assert runtime is not None
    receiver = runtime.client._receiver
    taken = receiver._take

    def fail(_message: object) -> None:
        receiver._take = taken  # type: ignore[method-assign]
        raise RuntimeError("a bug of ours")

    receiver._take = fail  # type: ignore[method-assign, assignment]
    outcome = driver.outcome(driver.submit(calls.double, 4))
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.EXECUTOR
    assert "an internal error of the executor: RuntimeError: a bug of ours. A call after" in outcome.loss.reason
    keys = []

    def takes_tasks() -> bool:
        try:
            keys.append(driver.submit(calls.double, 5))
        except ExecutorBroken:
            return False
        return True

    wait_until(takes_tasks, "it stays broken")
    assert driver.outcome(keys[-1]).value == 10
