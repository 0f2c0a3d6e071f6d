"""What the client makes of results, good and bad."""

from __future__ import annotations

import pickle
from dataclasses import replace

from flow_core.errors import DeserializationError, TaskRefused
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Usage, Verdict
from flow_core.remote.errors import pack
from flow_executors.client.directory import Directory
from flow_executors.client.outcomes import outcomes_of
from flow_executors.wire import frames
from flow_executors.wire.results import USAGE

OFFER = frames.Registration("m1", "b0", "node1", 42, 2, worker_pids=(50, 51))


def directory() -> Directory:
    made = Directory("htex")
    made.add(3, OFFER)
    return made


def one(status: int, payload: bytes, worker: int = 1) -> Outcome:
    message = frames.pack_results(3, 1, -5, [7], [100], [200], [worker], bytes([status]), [payload])
    (outcome,) = outcomes_of(frames.unpack_results(message), {7}, directory())
    return outcome


def test_a_value_comes_with_its_place_and_times_corrected_by_the_offset() -> None:
    outcome = one(Verdict.OK, pickle.dumps([1, 2]))
    assert (outcome.verdict, outcome.value, outcome.started_ns, outcome.ended_ns) == (Verdict.OK, [1, 2], 95, 195)
    assert outcome.place is not None
    assert (outcome.place.node, outcome.place.block, outcome.place.worker, outcome.place.pid) == ("node1", "b0", 1, 51)


def test_nothing_is_none_and_places_are_shared() -> None:
    where = directory()
    message = frames.pack_results(3, 1, 0, [7, 8], [1, 1], [1, 1], [0, 0], b"\0\0", [b"", b""])
    first, second = outcomes_of(frames.unpack_results(message), {7, 8}, where)
    assert first.value is None
    assert first.place is second.place


def test_a_worker_that_was_replaced_has_another_pid_from_then_on() -> None:
    where = directory()
    before = where.place(3, 1)
    where.replaced(3, 1, 99)
    assert (before.pid, where.place(3, 1).pid, where.place(3, 0).pid) == (51, 99, 50)
    assert where.place(3, 1) is where.place(3, 1)
    where.replaced(3, 2, 100)  # it has none such
    where.replaced(4, 0, 100)
    assert where.managers[3].worker_pids == (50, 99)


def test_a_worker_that_was_not_known_when_its_manager_registered_is_known_when_it_is_there() -> None:
    where = Directory("htex")
    where.add(3, replace(OFFER, worker_pids=()))
    assert where.place(3, 1).pid == 0
    where.replaced(3, 1, 51)
    assert [where.place(3, worker).pid for worker in (0, 1)] == [0, 51]


def test_unknown_and_repeated_keys_are_left_out() -> None:
    message = frames.pack_results(3, 1, 0, [7, 7, 9], [0] * 3, [0] * 3, [0] * 3, b"\0\0\0", [b""] * 3)
    assert [outcome.key for outcome in outcomes_of(frames.unpack_results(message), {7}, directory())] == [7]


def test_an_exception_comes_as_itself() -> None:
    outcome = one(Verdict.APP_ERROR, pack(KeyError("x")))
    assert isinstance(outcome.error, KeyError)


def test_usage_stands_before_the_payload() -> None:
    usage = Usage(1.0, 2.0, 3, 4, 5)
    outcome = one(Verdict.OK | USAGE, frames.pack_usage(usage) + pickle.dumps("x"))
    assert (outcome.value, outcome.usage) == ("x", usage)


def test_a_loss_says_where() -> None:
    outcome = one(Verdict.LOST, frames.pack_loss(Loss(LossKind.WORKER, signal=9, reason="killed")))
    assert outcome.loss is not None
    assert (outcome.loss.kind, outcome.loss.signal, outcome.loss.place) == (LossKind.WORKER, 9, outcome.place)


def test_a_loss_that_cannot_be_read_is_still_a_loss() -> None:
    outcome = one(Verdict.LOST, b"\xff")
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.TRANSFER


def test_a_refusal_carries_its_reason() -> None:
    outcome = one(Verdict.REFUSED, b"too big")
    assert isinstance(outcome.error, TaskRefused)
    assert "too big" in str(outcome.error)


def test_a_result_that_cannot_be_unpickled_is_an_error_that_says_so() -> None:
    for status in (Verdict.OK, Verdict.OK | USAGE, Verdict.APP_ERROR):
        outcome = one(status, b"nonsense")
        assert outcome.verdict is Verdict.APP_ERROR
        assert isinstance(outcome.error, DeserializationError)


def test_an_unknown_status_is_an_error() -> None:
    assert isinstance(one(0x0E, b"").error, DeserializationError)
