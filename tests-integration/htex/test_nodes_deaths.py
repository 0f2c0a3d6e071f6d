"""A real manager: what becomes of tasks and processes when something dies. Fault points say when; nothing sleeps."""

import os
import pickle
import platform
import signal
import time

import pytest

from flow_core.interfaces.outcome import LossKind, Verdict
from flow_executors.testing.node import IsolatedNode, alive, command_of, until
from flow_executors.testing.switchboard import Switchboard
from flow_executors.wire.auth import make_pair
from flow_executors.wire.kinds import Kind, kind_of
from flow_executors.wire.messages import (
    PeerInfo,
    Welcome,
    pack_again,
    pack_hello,
    pack_welcome,
    unpack_credit,
    unpack_loss,
    unpack_register,
    unpack_worker,
)
from flow_executors.wire.results import unpack_results

SLEEP = b"Rtime:sleep"
EXEC = b"Rbuiltins:exec"
PID = b"Ros:getpid"


def payload(*args):
    return pickle.dumps((args, {}, ()), 5)


def loss_of(result):
    status, data = result
    assert status == Verdict.LOST
    return unpack_loss(data, None)


@pytest.fixture
def node(tmp_path):
    with IsolatedNode(tmp_path) as made:
        yield made


# -- workers


@pytest.mark.parametrize(
    ("code", "exit_code", "signum"),
    [
        ("os._exit(9)", 9, None),
        ("os.kill(os.getpid(), 9)", None, signal.SIGKILL),
        ("__import__('ctypes').string_at(0)", None, signal.SIGSEGV),
    ],
)
def test_a_task_whose_worker_dies_is_lost_with_how_where_and_its_last_words(node, code, exit_code, signum):
    node.board.run([1], EXEC, payload(f"import os, sys\nprint('so far', file=sys.stderr)\n{code}"))
    loss = loss_of(node.board.results(1)[1])
    assert (loss.kind, loss.exit_code, loss.signal) == (LossKind.WORKER, exit_code, signum)
    assert "so far" in loss.stderr_tail
    assert f"on node {node.offer.node}, block 0" in loss.reason
    node.board.run([2], PID)
    assert node.board.results(1)[2][0] == Verdict.OK


@pytest.mark.parametrize("point", ["worker.before_run", "worker.after_run"])
def test_of_many_tasks_in_the_pipe_only_the_one_that_ran_is_lost(tmp_path, point):
    fault = f"{point}:40:kill:file={tmp_path / 'fired'}"
    with IsolatedNode(tmp_path, environment={"FLOW_FAULT": fault}) as node:
        node.board.run(range(1, 301), PID)
        results = node.board.results(300)
        lost = [key for key, (status, _) in results.items() if status == Verdict.LOST]
        assert len(lost) == 1
        assert all(status == Verdict.OK for key, (status, _) in results.items() if key not in lost)


def test_a_worker_that_is_replaced_before_the_welcome_is_told_of_after_it(tmp_path):
    with IsolatedNode(tmp_path, register=False) as node:
        board = node.board
        board.next(Kind.HELLO)
        board.send(pack_hello(PeerInfo("interchange", board.run_id, platform.python_version(), "test")))
        _, offer, _ = unpack_register(board.next(Kind.REGISTER))
        os.kill(offer.worker_pids[1], signal.SIGKILL)
        until(lambda: len(workers_of(node) - {*offer.worker_pids}) == 1, "another worker is there")
        board.send(pack_welcome(Welcome(board.number, time.time_ns(), *board.heartbeat)))
        number, rank, pid = unpack_worker(board.next(Kind.WORKER))
        assert (number, rank) == (board.number, 1)
        assert {pid} == workers_of(node) - {*offer.worker_pids}
        board.run(range(1, 21), PID)
        board.results(20)
        assert not [message for message in board.messages if message[0] == Kind.REGISTER]


def workers_of(node):
    """Return the pids of a manager's workers that live."""
    return {pid for pid in node.below() if command_of(pid).startswith("flow-w")}


def test_a_worker_that_dies_with_its_result_in_the_pipe_loses_nothing(tmp_path):
    fault = f"worker.result_written:40:kill:file={tmp_path / 'fired'}"
    with IsolatedNode(tmp_path, environment={"FLOW_FAULT": fault}) as node:
        node.board.run(range(1, 301), PID)
        results = node.board.results(300)
        assert all(status == Verdict.OK for status, _ in results.values())
        assert (tmp_path / "fired").exists()


def test_workers_that_die_as_they_start_make_the_manager_leave_with_the_reason(tmp_path):
    with IsolatedNode(tmp_path, environment={"FLOW_FAULT": "worker.born:1+:exit=5"}, register=False) as node:
        assert node.process.wait(20) == 1
        assert "exited with code 5" in node.stderr


def test_a_worker_killed_in_idleness_is_replaced(node):
    os.kill(node.worker_pids[0], signal.SIGKILL)
    until(lambda: len(node.below()) >= 3 and node.worker_pids[0] not in node.below(), "there is a new worker")
    node.board.run(range(1, 5), SLEEP, payload(0.01))
    assert len(node.board.results(4)) == 4


# -- the fork server


def test_when_the_fork_server_dies_the_manager_says_what_is_lost_and_leaves(node):
    node.board.run([1, 2, 3], SLEEP, payload(600))
    until(lambda: node.asleep() == 2, "two tasks run")
    below = node.below()
    (fork_client,) = [pid for pid in below if command_of(pid) == "flow-forkserver"]
    os.kill(fork_client, signal.SIGKILL)
    results = node.board.results(2)
    assert {loss_of(result).kind for result in results.values()} == {LossKind.WORKER}
    assert node.board.returned().keys == (3,)
    node.board.next(Kind.EXIT)
    assert node.process.wait(20) == 1
    until(lambda: not any(alive(pid) for pid in below), "nothing is left")


@pytest.mark.parametrize("action", ["kill", "exit"])
def test_a_fork_server_that_dies_as_it_spawns_ends_the_manager(tmp_path, action):
    with IsolatedNode(tmp_path, environment={"FLOW_FAULT": f"fork_server.spawn:2:{action}"}, register=False) as node:
        assert node.process.wait(20) == 1


# -- the manager


@pytest.mark.parametrize("point", ["manager.after_recv:3", "manager.worker_frames:4", "manager.before_send:1"])
def test_when_the_manager_is_killed_everything_below_it_ends(tmp_path, point):
    fired = tmp_path / "fired"
    with IsolatedNode(tmp_path, environment={"FLOW_FAULT": f"{point}:kill:file={fired}"}) as node:
        below = node.below()
        node.board.run(range(1, 20), b"Ros:system", payload("exec sleep 0.05"))
        assert node.process.wait(20) == -signal.SIGKILL
        assert fired.exists()
        until(lambda: not any(alive(pid) for pid in below), "fork server and workers are gone", 5.0)


def test_what_tasks_had_started_ends_with_a_killed_manager(node):
    node.board.run([1], b"Ros:system", payload("sleep 600 & setsid sleep 600"))
    until(lambda: len(node.below()) >= 6, "both sleeps run")
    below = node.below()
    os.kill(node.process.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in below), "everything is gone", 5.0)


def test_a_frozen_manager_leaves_when_it_comes_back_too_late(tmp_path):
    with IsolatedNode(tmp_path, switchboard=Switchboard(heartbeat=(0.1, 0.5))) as node:
        below = node.below()
        os.kill(node.process.pid, signal.SIGSTOP)
        node.board.close()
        os.kill(node.process.pid, signal.SIGCONT)
        assert node.process.wait(20) == 1
        until(lambda: not any(alive(pid) for pid in below), "nothing is left")


def full(message: bytes) -> bool:
    """Whether a manager says that it takes nothing more."""
    return kind_of(message) == Kind.CREDIT and unpack_credit(message).slots == 0


def test_told_to_end_by_the_scheduler_it_returns_what_waits_and_reports_what_runs(node):
    node.board.run([1, 2, 3, 4], SLEEP, payload(600))
    until(lambda: node.asleep() == 2, "two tasks run")
    os.kill(node.process.pid, signal.SIGTERM)
    first = node.board.wait_for(
        lambda message: kind_of(message) in (Kind.RETURNED, Kind.RESULTS) or full(message), "end"
    )
    assert kind_of(first) == Kind.CREDIT  # else more would be sent by whoever hears of an outcome
    assert set(node.board.returned().keys) == {3, 4}
    results = node.board.results(2)
    assert {loss_of(result).kind for result in results.values()} == {LossKind.BLOCK}
    assert node.process.wait(20) == 0


def test_a_block_that_is_ended_late_was_ended_by_its_walltime(tmp_path):
    with IsolatedNode(tmp_path, {"walltime": 0.001}) as node:
        node.board.run([1], SLEEP, payload(600))
        until(lambda: node.asleep() == 1, "the task runs")
        os.kill(node.process.pid, signal.SIGTERM)
        assert loss_of(node.board.results(1)[1]).kind == LossKind.WALLTIME


# -- the interchange


def test_when_nobody_listens_any_more_the_manager_ends_within_five_seconds(node):
    below = node.below()
    node.board.close()
    assert node.process.wait(5 + 10) == 1  # 5 s promised, and room for a busy machine
    assert "is gone" in node.stderr
    until(lambda: not any(alive(pid) for pid in below), "nothing is left")


def test_an_interchange_that_is_silent_is_given_up_after_the_threshold(tmp_path):
    with IsolatedNode(tmp_path, switchboard=Switchboard(heartbeat=(0.1, 0.6))) as node:
        assert node.process.wait(20) == 1
        assert "silent" in node.stderr


def test_a_new_interchange_on_the_same_socket_gets_the_keys_held_and_the_results_it_never_saw(tmp_path):
    with IsolatedNode(tmp_path, switchboard=Switchboard(heartbeat=(0.2, 30.0))) as node:
        old = node.board
        old.run([1, 2, 3], SLEEP, [payload(0), payload(600), payload(600)])
        done = unpack_results(old.next(Kind.RESULTS))
        assert done.keys == (1,)
        old.close()
        node.board = Switchboard(server=old.server, block_pair=old.block_pair, port=old.port, heartbeat=(0.2, 30.0))
        number, _, held = node.board.welcome()
        assert number == 1
        assert set(held) == {1, 2, 3}
        assert unpack_results(node.board.next(Kind.RESULTS)).keys == (1,)
        node.board.run([4], PID)
        assert all(alive(pid) for pid in node.worker_pids)


def test_told_that_it_is_not_known_it_introduces_itself_again(node):
    node.board.send(pack_again())
    number, _, held = node.board.welcome()
    assert (number, held) == (1, ())


def test_a_key_that_is_not_admitted_is_a_clear_error(tmp_path):
    with IsolatedNode(tmp_path, register=False, switchboard=Switchboard(admits=make_pair())) as node:
        assert node.process.wait(20) == 1
        assert "does not accept this block's key" in node.stderr


def test_an_interchange_nowhere_to_be_found_is_a_clear_error_with_all_addresses(tmp_path):
    options = {"addresses": ("127.0.0.9", "127.0.0.8"), "heartbeat_threshold": 1.0}
    with IsolatedNode(tmp_path, options, register=False) as node:
        assert node.process.wait(20) == 1
        assert "127.0.0.9 (refused), 127.0.0.8 (refused)" in node.stderr


def test_a_node_without_room_says_so(tmp_path):
    with IsolatedNode(tmp_path, {"mem_per_worker": 1e6}, register=False) as node:
        assert node.process.wait(20) == 1
        assert "mem_per_worker" in node.stderr


def test_where_a_log_directory_cannot_be_written_logs_lie_in_that_of_the_node_and_say_why(tmp_path):
    (tmp_path / "file").write_text("")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with IsolatedNode(tmp_path, {"logdir": str(tmp_path / "file" / "logs")}, environment=cache) as node:
        node.board.run([1], PID)
        assert node.board.results(1)[1][0] == Verdict.OK
        (found,) = (tmp_path / "cache" / "flow").rglob("manager.log")
        assert "Not a directory" in found.read_text()


def test_without_its_key_file_a_manager_says_where_keys_come_from(tmp_path):
    with IsolatedNode(tmp_path, environment={"FLOW_FAULT": ""}, register=False) as node:
        os.kill(node.process.pid, signal.SIGKILL)
    import subprocess

    done = subprocess.run(
        ["bash", "-c", node.options.command()],
        capture_output=True,
        text=True,
        timeout=20,
        env={key: text for key, text in os.environ.items() if not key.startswith("FLOW_SECRET")},
    )
    assert done.returncode == 1
    assert "FLOW_SECRET_FLOW_BLOCK_KEY" in done.stderr
