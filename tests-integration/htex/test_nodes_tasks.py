"""A real manager with real workers under a hand-stepped interchange: what it does with tasks."""

import pickle
import time

import pytest

from flow_core.errors import AppTimeout
from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_core.remote.errors import unpack
from flow_executors.serialize.buffers import load_with_buffers
from flow_executors.testing.node import IsolatedNode, alive, until
from flow_executors.testing.switchboard import Switchboard
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    ALL,
    DrainMode,
    pack_ack,
    pack_cancel,
    pack_drain,
    pack_recall,
    pack_spec,
    unpack_credit,
    unpack_exit,
    unpack_heartbeat,
)
from flow_executors.wire.results import BUFFERS, VERDICT_MASK

SLEEP = b"Rtime:sleep"
GETENV = b"Ros:getenv"


def payload(*args):
    return pickle.dumps((args, {}, ()), 5)


def value(result):
    status, data = result
    assert status & VERDICT_MASK == Verdict.OK
    return load_with_buffers(memoryview(data), bool(status & BUFFERS))


@pytest.fixture
def node(tmp_path):
    with IsolatedNode(tmp_path) as made:
        yield made


def test_a_manager_says_what_it_offers(node):
    offer = node.offer
    assert (offer.workers, offer.block, offer.pid) == (2, "0", node.process.pid)
    assert len(offer.worker_pids) == 2
    assert all(alive(pid) for pid in offer.worker_pids)
    assert offer.memory_mb > 0
    assert offer.host_id


def test_tasks_run_and_come_back(node):
    node.board.run(range(1, 501), b"Rmath:sqrt", [payload(float(key)) for key in range(1, 501)])
    results = node.board.results(500)
    assert {key: value(result) for key, result in results.items()} == {key: key**0.5 for key in range(1, 501)}


def test_short_tasks_make_the_manager_ask_for_more_in_advance(node):
    node.board.run(range(1, 301), b"Ros:getpid")
    credit = unpack_credit(node.board.next(Kind.CREDIT))
    assert credit.slots == 2
    assert credit.prefetch > 0


@pytest.mark.parametrize("begin", ["FLOW", "PARSL"])
def test_workers_know_their_place(node, begin):
    names = [f"{begin}_WORKER_{name}" for name in ("RANK", "COUNT", "POOL_ID", "BLOCK_ID")]
    node.board.run(range(1, 5), GETENV, [payload(name) for name in names])
    found = {key: value(result) for key, result in node.board.results(4).items()}
    assert found[1] in ("0", "1")
    assert (found[2], found[3], found[4]) == ("2", node.offer.manager_id, "0")


def test_workers_do_not_see_where_the_key_lies(node):
    node.board.run([1], GETENV, payload("FLOW_SECRET_FLOW_BLOCK_KEY"))
    assert value(node.board.results(1)[1]) is None


def test_large_arguments_and_results_pass(node):
    node.board.run([1, 2], b"Rbuiltins:bytes", [payload(b"a" * 5_000_000), payload(20_000_000)])
    results = node.board.results(2)
    assert value(results[1]) == b"a" * 5_000_000
    assert value(results[2]) == bytes(20_000_000)


def test_code_that_is_missing_is_asked_for(node):
    from hashlib import blake2b

    from flow_executors.wire.messages import pack_blob, unpack_need
    from flow_executors.wire.tasks import pack_record, pack_tasks

    blob = b"Ros:getppid"
    digest = blake2b(blob, digest_size=16).digest()
    record = pack_record(digest, 1, 0, b"")
    node.board.send(pack_tasks(0, [digest], [1], [len(record)], record))
    node.board.send(pack_recall(0))
    node.board.next(Kind.RETURNED)
    for piece in pack_blob(digest, blob):
        node.board.send(piece)
    assert value(node.board.results(1)[1]) > 0
    assert all(digest in unpack_need(message) for message in node.board.messages if message[0] == Kind.NEED)


def test_a_long_task_does_not_hold_back_short_ones_behind_it(node, tmp_path):
    import os

    node.board.run(range(1, 101), b"Ros:getpid")
    node.board.results(100)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    open_gate = b"Rbuiltins:open"
    node.board.run([1000], open_gate, payload(str(gate)))
    node.board.run(range(1001, 1101), b"Ros:getpid")
    node.board.results(100)
    with gate.open("w"):
        status, _ = node.board.results(1)[1000]
    assert status == Verdict.APP_ERROR  # an open file cannot be pickled: it ran


def test_the_start_of_a_long_task_is_told_by_a_heartbeat(node):
    node.board.run([7], SLEEP, payload(30))
    deadline = time.monotonic() + 20
    while not any(unpack_heartbeat(beat).keys == (7,) for beat in node.board.beats):
        assert time.monotonic() < deadline
        with pytest.raises(TimeoutError):
            node.board.next(Kind.RESULTS, 0.2)


def test_waiting_tasks_are_cancelled_and_running_ones_killed_on_demand(node):
    node.board.run([1, 2, 3], SLEEP, payload(60))
    node.board.send(pack_cancel([3], False))
    assert node.board.results(1)[3][0] == Verdict.CANCELLED
    until(lambda: node.asleep() == 2, "two tasks run")
    node.board.send(pack_cancel([1], True))
    assert node.board.results(1)[1][0] == Verdict.CANCELLED
    node.board.run([4], b"Ros:getpid")
    assert value(node.board.results(1)[4]) not in node.worker_pids


def test_a_recall_gives_back_what_has_not_started(node):
    node.board.run(range(1, 11), SLEEP, payload(60))
    node.board.send(pack_recall(3))
    batch = node.board.returned()
    assert (set(batch.keys), batch.last) == ({8, 9, 10}, True)
    node.board.send(pack_recall(ALL))
    assert set(node.board.returned().keys) == {3, 4, 5, 6, 7}


def test_a_recall_of_nothing_is_answered_too(node):
    node.board.send(pack_recall(5))
    batch = node.board.returned()
    assert (batch.keys, batch.last) == ((), True)


def test_a_drained_manager_returns_what_waits_finishes_what_runs_and_leaves(node):
    node.board.run([1, 2, 3], SLEEP, payload(0.5))
    until(lambda: node.asleep() == 2, "two tasks run")
    node.board.send(pack_drain(DrainMode.DRAIN))
    assert node.board.returned().keys == (3,)
    assert set(node.board.results(2)) == {1, 2}
    node.board.send(pack_ack(1000))
    code, _ = unpack_exit(node.board.next(Kind.EXIT))
    assert code == 0
    assert node.process.wait(20) == 0


def test_after_its_drain_period_a_manager_leaves_by_itself(tmp_path):
    with IsolatedNode(tmp_path, {"drain_period": 0.5}) as node:
        assert unpack_exit(node.board.next(Kind.EXIT))[0] == 0
        assert node.process.wait(20) == 0


def test_a_class_of_its_own_gets_its_slots_and_its_environment(node):
    node.board.send(pack_spec(3, TaskSpec(Resources(cores=2), environment=(("COLOUR", "red"),))))
    node.board.run([1, 2], GETENV, payload("COLOUR"), class_id=3)
    assert [value(result) for result in node.board.results(2).values()] == ["red", "red"]


def test_a_task_that_cannot_be_interrupted_has_its_worker_killed_after_its_walltime(node):
    node.board.send(pack_spec(3, TaskSpec(walltime_s=0.1)))
    blocked = "import signal, time\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\ntime.sleep(600)"
    node.board.run([1], b"Rbuiltins:exec", payload(blocked), class_id=3)
    status, data = node.board.results(1, 30)[1]
    assert status == Verdict.APP_ERROR
    error = unpack(data)
    assert isinstance(error, AppTimeout)
    assert error.walltime_s == 0.1
    assert "longer than its walltime of 0.1 s and could not be interrupted: its worker was killed" in str(error)


def test_accelerators_are_pinned_to_workers_and_given_to_tasks(tmp_path):
    with IsolatedNode(tmp_path, {"accelerators": "a b", "max_workers": 8.0}) as node:
        assert node.offer.workers == 2
        assert node.offer.gpus == 2
        node.board.run(
            [1, 2],
            b"Rbuiltins:eval",
            payload("[__import__('os').environ['CUDA_VISIBLE_DEVICES'], __import__('time').sleep(0.2)][0]"),
        )
        assert {value(result) for result in node.board.results(2).values()} == {"a", "b"}
        node.board.send(pack_spec(3, TaskSpec(Resources(gpus=2))))
        node.board.run([3], GETENV, payload("CUDA_VISIBLE_DEVICES"), class_id=3)
        assert set(value(node.board.results(1)[3]).split(",")) == {"a", "b"}


def test_logs_lie_in_a_directory_of_the_managers_own(node):
    node.board.run([1], b"Rbuiltins:print", payload("a line of a task"))
    node.board.results(1)
    assert "registered as manager" in node.log()
    assert "a line of a task" in node.log("worker_*.log")


def test_told_that_the_run_is_over_it_ends_with_everything_below_it(node):
    node.board.run([1], b"Ros:system", payload("sleep 600 & setsid sleep 600"))
    until(lambda: len(node.below()) >= 6, "both sleeps run")
    below = node.below()
    assert node.end() == 0
    until(lambda: not any(alive(pid) for pid in below), "everything below the manager is gone")


def test_the_address_that_answers_is_taken(tmp_path):
    with IsolatedNode(tmp_path, {"addresses": ("192.0.2.7", "127.0.0.9", "127.0.0.1")}) as node:
        assert node.offer is not None
        node.board.run([1], b"Ros:getpid")
        assert value(node.board.results(1)[1]) in node.worker_pids


def test_an_idle_manager_costs_next_to_nothing(tmp_path):
    with IsolatedNode(tmp_path, switchboard=Switchboard(heartbeat=(30.0, 120.0))) as node:
        node.board.run(range(1, 1001), b"Ros:getpid")
        node.board.results(1000)
        before = cpu_s(node)
        time.sleep(3)
        assert cpu_s(node) - before < 0.06


def cpu_s(node):
    total = 0
    for pid in (node.process.pid, *node.below()):
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100
