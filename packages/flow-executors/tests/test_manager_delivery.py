"""How results leave a manager: which the client is told first, and what the interchange hears when."""

from __future__ import annotations

import pytest

from flow_core.interfaces.outcome import Verdict
from flow_executors.manager.interchange_link import ResultSender
from flow_executors.manager.results import ResultBuffer
from flow_executors.wire.results import result_head
from flow_executors.wire.tasks import TOLD_AT


class Line:
    """Remembers what is sent, and to whom."""

    def __init__(self, short: bool) -> None:
        self.short = short
        self.told: list[bytes] = []
        self.sent: list[bytes] = []

    def tell(self, message: bytes) -> bool:
        if self.short:
            self.told.append(message)
        return self.short

    def send(self, message: bytes) -> None:
        self.sent.append(message)


class FakeInterchange:
    """A delivery with its ends."""

    def __init__(self, short: bool = True) -> None:
        self.line, self.outbox = Line(short), ResultBuffer()
        self.delivery = ResultSender(self.line, self.outbox)  # type: ignore[arg-type]  # a line is that to it

    def sequences(self) -> list[int]:
        return [result_head(message)[1] for message in self.line.sent]


@pytest.fixture
def shared() -> FakeInterchange:
    return FakeInterchange()


def test_a_single_result_is_told_to_the_client_and_the_interchange_hears_of_it_later(shared: FakeInterchange) -> None:
    shared.outbox.add(7, Verdict.OK, b"value")
    shared.delivery.one(hold_back=True, now=0.0)
    assert len(shared.line.told) == 1
    assert not shared.line.told[0][TOLD_AT]
    assert shared.line.sent == []
    assert shared.outbox.keys() == [7]  # kept until it is acknowledged
    shared.delivery.rest()
    assert [message[TOLD_AT] for message in shared.line.sent] == [1]
    shared.delivery.rest()
    assert len(shared.line.sent) == 1
    shared.outbox.acknowledge(1, 1.0)
    assert not shared.outbox.anything_unsent


def test_where_the_next_task_may_wait_for_the_slot_both_are_told_at_once(shared: FakeInterchange) -> None:
    shared.outbox.add(7, Verdict.OK, b"value")
    shared.delivery.one(hold_back=False, now=0.0)
    assert len(shared.line.told) == len(shared.line.sent) == 1


def test_the_interchange_hears_of_results_in_their_order(shared: FakeInterchange) -> None:
    for key in range(4):
        shared.outbox.add(key, Verdict.OK)
        shared.delivery.one(hold_back=True, now=0.0)
    shared.outbox.add(5, Verdict.OK)
    shared.outbox.add(6, Verdict.OK)
    shared.delivery.all(0.0)
    assert shared.sequences() == [1, 2, 3, 4, 5]
    assert [message[TOLD_AT] for message in shared.line.sent] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("verdict", [Verdict.APP_ERROR, Verdict.LOST, Verdict.CANCELLED])
def test_only_what_went_well_is_told(shared: FakeInterchange, verdict: Verdict) -> None:
    shared.outbox.add(7, verdict, b"why")
    shared.delivery.one(hold_back=True, now=0.0)
    assert shared.line.told == []
    assert [message[TOLD_AT] for message in shared.line.sent] == [0]


def test_what_is_large_is_sent_once(shared: FakeInterchange) -> None:
    shared.outbox.add(7, Verdict.OK, bytes(100_000))
    shared.delivery.one(hold_back=True, now=0.0)
    assert shared.line.told == []
    assert [message[TOLD_AT] for message in shared.line.sent] == [0]


def test_a_client_that_cannot_be_told_hears_by_the_interchange() -> None:
    shared = FakeInterchange(short=False)
    shared.outbox.add(7, Verdict.OK, b"value")
    shared.delivery.one(hold_back=True, now=0.0)
    assert [message[TOLD_AT] for message in shared.line.sent] == [0]


def test_what_an_interchange_that_is_gone_has_not_heard_is_for_the_next_one(shared: FakeInterchange) -> None:
    shared.outbox.add(7, Verdict.OK, b"value")
    shared.delivery.one(hold_back=True, now=0.0)
    shared.delivery.forget()
    shared.delivery.rest()
    assert shared.line.sent == []
    (again,) = shared.outbox.unacknowledged()
    assert not again[TOLD_AT]
