"""What the client makes of results, good and bad."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from flow_core.errors import DeserializationError, TaskRefused
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Usage, Verdict
from flow_core.remote.errors import pack
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.node_keeper import NodeKeeper
from flow_executors.client.outcomes import outcomes_of
from flow_executors.wire.messages import Registration, pack_loss
from flow_executors.wire.results import UNIMPORTED, UNLOADED, USAGE, pack_results, pack_usage, unpack_results

OFFER = Registration("m1", "b0", "node1", 42, 2, worker_pids=(50, 51))


class _Calls:
    """An object whose unpickling calls code of its own."""

    made: ClassVar[list[int]] = []

    def __setstate__(self, _state: object) -> None:
        self.made.append(1)

    def __getstate__(self) -> object:
        return 1


def directory() -> ManagerDirectory:
    made = ManagerDirectory("htex", Path("logs"))
    made.add(3, OFFER)
    return made


def known(*keys: int) -> dict[int, bytes]:
    return dict.fromkeys(keys, b"digest of a func" + b"and its record")


def one(status: int, payload: bytes, worker: int = 1) -> Outcome:
    message = pack_results(3, 1, -5, [7], [100], [200], [worker], bytes([status]), [payload])
    outcomes, unmade = outcomes_of(unpack_results(message), known(7), directory())
    (outcome,) = [*outcomes, *(make() for _, make in unmade)]
    return outcome


def test_a_value_comes_with_its_place_and_times_corrected_by_the_offset() -> None:
    outcome = one(Verdict.OK, pickle.dumps([1, 2]))
    assert (outcome.verdict, outcome.value, outcome.started_ns, outcome.ended_ns) == (Verdict.OK, [1, 2], 95, 195)
    assert outcome.place is not None
    assert (outcome.place.node, outcome.place.block, outcome.place.worker, outcome.place.pid) == ("node1", "b0", 1, 51)


def test_what_may_call_code_of_the_users_is_not_unpickled_here() -> None:
    called: list[int] = []
    payloads = [pickle.dumps([1]), pickle.dumps(_Calls()), pack(ValueError("x"))]
    message = pack_results(3, 1, 0, [7, 8, 9], [1] * 3, [2] * 3, [0] * 3, b"\0\0\1", payloads)
    _Calls.made = called
    outcomes, unmade = outcomes_of(unpack_results(message), known(7, 8, 9), directory())
    assert [outcome.key for outcome in outcomes] == [7]
    assert [key for key, _ in unmade] == [8, 9]
    assert not called
    made = [make() for _, make in unmade]
    assert called == [1]
    assert [(one.key, one.verdict, one.started_ns) for one in made] == [(8, Verdict.OK, 1), (9, Verdict.APP_ERROR, 1)]


def test_nothing_is_none_and_places_are_shared() -> None:
    where = directory()
    message = pack_results(3, 1, 0, [7, 8], [1, 1], [1, 1], [0, 0], b"\0\0", [b"", b""])
    first, second = outcomes_of(unpack_results(message), known(7, 8), where)[0]
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
    where = ManagerDirectory("htex", Path("logs"))
    where.add(3, replace(OFFER, worker_pids=()))
    assert where.place(3, 1).pid == 0
    where.replaced(3, 1, 51)
    assert [where.place(3, worker).pid for worker in (0, 1)] == [0, 51]


def test_unknown_and_repeated_keys_are_left_out() -> None:
    message = pack_results(3, 1, 0, [7, 7, 9], [0] * 3, [0] * 3, [0] * 3, b"\0\0\0", [b""] * 3)
    assert [outcome.key for outcome in outcomes_of(unpack_results(message), known(7), directory())[0]] == [7]


def test_an_exception_comes_as_itself() -> None:
    outcome = one(Verdict.APP_ERROR, pack(KeyError("x")))
    assert isinstance(outcome.error, KeyError)


def test_usage_stands_before_the_payload() -> None:
    usage = Usage(1.0, 2.0, 3, 4, 5)
    outcome = one(Verdict.OK | USAGE, pack_usage(usage) + pickle.dumps("x"))
    assert (outcome.value, outcome.usage) == ("x", usage)


def test_a_loss_says_where() -> None:
    outcome = one(Verdict.LOST, pack_loss(Loss(LossKind.WORKER, signal=9, reason="killed")))
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


class _Watch(NodeKeeper):
    """Two nodes; what is told of them."""

    def __init__(self) -> None:
        super().__init__("htex", None, logging.getLogger("test"), lambda _nodes: None)
        self.told: list[tuple[object, ...]] = []
        self.joined("node1")
        self.joined("node2")

    def succeeded(self, node: str, app: bytes, start_ns: int, duration_ns: int) -> None:
        self.told.append(("ok", node, app, duration_ns))

    def failed(self, node: str, app: bytes) -> None:
        self.told.append(("failed", node, app))


def watched(status: int, payload: bytes, end: int = 200) -> tuple[Outcome, _Watch]:
    where = directory()
    where.watch = watch = _Watch()
    message = pack_results(3, 1, 0, [7], [100], [end], [1], bytes([status]), [payload])
    outcomes, unmade = outcomes_of(unpack_results(message), known(7), where)
    (outcome,) = [*outcomes, *(make() for _, make in unmade)]
    return outcome, watch


LACKING = pack(ModuleNotFoundError("No module named 'helper'"))


@pytest.mark.parametrize("text", ["no such name", "no such name (on node node1)"])
def test_a_failed_import_names_its_node_once(text: str) -> None:
    outcome, _ = watched(Verdict.APP_ERROR, pack(ImportError(text)))
    assert isinstance(outcome.error, ImportError)
    assert "".join([str(outcome.error), *getattr(outcome.error, "__notes__", ())]).count("node1") == 1


@pytest.mark.parametrize("flag", [UNLOADED, UNIMPORTED])
def test_what_a_node_could_not_load_is_lost_while_another_one_may(flag: int) -> None:
    outcome, watch = watched(Verdict.APP_ERROR | flag, LACKING)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert (outcome.loss.kind, outcome.loss.place) == (LossKind.NODE, outcome.place)
    assert "helper" in outcome.loss.reason
    assert isinstance(outcome.error, ModuleNotFoundError)
    assert outcome.error.__notes__ == ["This was on node node1 (executor htex)."]
    assert watch.told == [("failed", "node1", b"digest of a func")]


def test_a_module_that_is_missed_late_is_the_apps() -> None:
    outcome, _ = watched(Verdict.APP_ERROR | UNIMPORTED, LACKING, end=6_000_000_000)
    assert outcome.verdict is Verdict.APP_ERROR


def test_other_errors_are_told_and_are_the_apps() -> None:
    outcome, watch = watched(Verdict.APP_ERROR, pack(ValueError("x")))
    assert outcome.verdict is Verdict.APP_ERROR
    assert watch.told == [("failed", "node1", b"digest of a func")]


@pytest.mark.parametrize(("took", "told"), [(1_000_000, False), (50_000_000, True)])
def test_only_tasks_that_took_a_while_are_told_when_all_is_well(took: int, told: bool) -> None:
    _, watch = watched(Verdict.OK, b"", end=100 + took)
    assert watch.told == ([("ok", "node1", b"digest of a func", took)] if told else [])
