"""Withdrawals: what is answered, by whom, and how long that is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flow_executors.client.withdrawals import Withdrawals


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _asked_aside(withdrawals: Withdrawals, key: int, known: set[int], then: Callable[[], None]) -> bool | None:
    """Ask for a key; once the request was sent another thread, like the receiver's, goes on."""
    sent = threading.Event()

    def receive() -> None:
        assert sent.wait(10)
        then()

    receiver = threading.Thread(target=receive)
    receiver.start()
    try:
        return withdrawals.ask(key, known, sent.set)
    finally:
        receiver.join(10)


def test_a_try_that_runs_is_not_withdrawn(clock: Clock) -> None:
    cancelled = {7: False, 8: False}
    withdrawals = Withdrawals(cancelled, clock)
    assert _asked_aside(withdrawals, 7, {7, 8}, lambda: withdrawals.begun([7])) is False
    assert not withdrawals.waiting
    assert cancelled == {8: False}  # no manager is asked again to cancel what runs


def test_the_end_of_a_try_wakes_who_waits_for_it(clock: Clock) -> None:
    withdrawals, known = Withdrawals({}, clock), {7}

    def ends() -> None:
        known.clear()
        withdrawals.settle(known)

    assert _asked_aside(withdrawals, 7, known, ends) is None
    assert not withdrawals.waiting


def test_what_is_known_no_more_once_the_request_was_sent_is_not_waited_for(clock: Clock) -> None:
    known = {7}
    assert Withdrawals({}, clock).ask(7, known, known.clear) is None


def test_who_is_silent_is_not_waited_for_without_end(clock: Clock) -> None:
    withdrawals, sent = Withdrawals({}, clock), []

    def send() -> None:  # each answer takes 2 s, and nothing is known of the try meanwhile
        sent.append(clock.now)
        clock.now += 2.0

    for key in range(10):
        assert withdrawals.ask(key, (), send) is None
    assert len(sent) == 3  # 5 s of waiting, and half a second more for each that passed since
    clock.now += 10.0
    assert withdrawals.ask(11, (), send) is None
    assert len(sent) == 4


def test_starts_and_ends_of_others_answer_nobody(clock: Clock) -> None:
    withdrawals, known = Withdrawals({}, clock), {1, 2}

    def other_things() -> None:
        withdrawals.begun([2, 3])
        withdrawals.settle(known)
        assert not withdrawals.waiting[1].answered.is_set()
        withdrawals.begun([1])

    assert _asked_aside(withdrawals, 1, known, other_things) is False
