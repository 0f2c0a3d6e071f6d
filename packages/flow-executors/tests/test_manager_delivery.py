"""How results leave a manager: which the client is told first, and what the interchange hears when."""

from __future__ import annotations

import pytest

from flow_core.interfaces.outcome import Verdict
from flow_executors.manager.delivery import Delivery
from flow_executors.manager.outbox import Outbox
from flow_executors.wire.results import result_head
from flow_executors.wire.single import TOLD_AT


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


class Desk:
    """A delivery with its ends."""

    def __init__(self, short: bool = True) -> None:
        self.line, self.outbox = Line(short), Outbox()
        self.delivery = Delivery(self.line, self.outbox)  # type: ignore[arg-type]  # a line is that to it

    def sequences(self) -> list[int]:
        return [result_head(message)[1] for message in self.line.sent]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_single_result_is_told_to_the_client_and_the_interchange_hears_of_it_later(desk: Desk) -> None:
    desk.outbox.add(7, Verdict.OK, b"value")
    desk.delivery.one(hold_back=True)
    assert len(desk.line.told) == 1
    assert not desk.line.told[0][TOLD_AT]
    assert desk.line.sent == []
    assert desk.outbox.keys() == [7]  # kept until it is acknowledged
    desk.delivery.rest()
    assert [message[TOLD_AT] for message in desk.line.sent] == [1]
    desk.delivery.rest()
    assert len(desk.line.sent) == 1
    desk.outbox.acknowledge(1)
    assert not desk.outbox.owed


def test_where_the_next_task_may_wait_for_the_slot_both_are_told_at_once(desk: Desk) -> None:
    desk.outbox.add(7, Verdict.OK, b"value")
    desk.delivery.one(hold_back=False)
    assert len(desk.line.told) == len(desk.line.sent) == 1


def test_the_interchange_hears_of_results_in_their_order(desk: Desk) -> None:
    for key in range(4):
        desk.outbox.add(key, Verdict.OK)
        desk.delivery.one(hold_back=True)
    desk.outbox.add(5, Verdict.OK)
    desk.outbox.add(6, Verdict.OK)
    desk.delivery.all()
    assert desk.sequences() == [1, 2, 3, 4, 5]
    assert [message[TOLD_AT] for message in desk.line.sent] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("verdict", [Verdict.APP_ERROR, Verdict.LOST, Verdict.CANCELLED])
def test_only_what_went_well_is_told(desk: Desk, verdict: Verdict) -> None:
    desk.outbox.add(7, verdict, b"why")
    desk.delivery.one(hold_back=True)
    assert desk.line.told == []
    assert [message[TOLD_AT] for message in desk.line.sent] == [0]


def test_what_is_large_is_sent_once(desk: Desk) -> None:
    desk.outbox.add(7, Verdict.OK, bytes(100_000))
    desk.delivery.one(hold_back=True)
    assert desk.line.told == []
    assert [message[TOLD_AT] for message in desk.line.sent] == [0]


def test_a_client_that_cannot_be_told_hears_by_the_interchange() -> None:
    desk = Desk(short=False)
    desk.outbox.add(7, Verdict.OK, b"value")
    desk.delivery.one(hold_back=True)
    assert [message[TOLD_AT] for message in desk.line.sent] == [0]


def test_what_an_interchange_that_is_gone_has_not_heard_is_for_the_next_one(desk: Desk) -> None:
    desk.outbox.add(7, Verdict.OK, b"value")
    desk.delivery.one(hold_back=True)
    desk.delivery.forget()
    desk.delivery.rest()
    assert desk.line.sent == []
    (again,) = desk.outbox.unacknowledged()
    assert not again[TOLD_AT]
