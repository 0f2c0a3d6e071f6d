"""Managers far from their interchange: the round trip is measured, and work taken in advance for it."""

from __future__ import annotations

import logging
import select
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_executors.client.managers import ManagerDirectory
from flow_executors.manager.interchange_link import RegistrationSession
from flow_executors.manager.interchange_liveness import FIRST_WORD_S, ConnectionState, InterchangeLiveness, Phase
from flow_executors.manager.manager_core import PrefetchEstimator
from flow_executors.manager.results import ResultBuffer
from flow_executors.manager.round_trips import LEAST_S, RoundTripTimes
from flow_executors.testing.virtual import VirtualRun, ideal_s
from flow_executors.wire.messages import Registration, pack_notice, unpack_notice

# -- measuring


def measured(*trips_s: float) -> RoundTripTimes:
    trip = RoundTripTimes()
    for at, trip_s in enumerate(trips_s):
        trip.asked(100.0 * at)
        trip.answered(100.0 * at + trip_s)
    return trip


def test_the_shortest_of_the_last_round_trips_counts() -> None:
    assert measured(0.9, 0.11, 0.3).seconds == pytest.approx(0.11)
    assert measured(0.11, *[0.3] * 20).seconds == pytest.approx(0.3)


def test_short_round_trips_count_as_none() -> None:
    assert measured(0.9, LEAST_S / 2).seconds == 0.0
    assert RoundTripTimes().seconds == 0.0


def test_answers_belong_to_the_questions_in_their_order() -> None:
    trip = RoundTripTimes()
    trip.asked(0.0)
    trip.asked(0.5)
    trip.answered(1.0)
    trip.answered(1.5)
    assert trip.seconds == pytest.approx(1.0)
    assert not trip.answered(2.0)  # to no question


def test_a_slow_link_is_asked_again_at_once_until_it_is_known() -> None:
    trip = RoundTripTimes()
    more, questions = True, 0
    while more:
        questions += 1
        trip.asked(float(questions))
        more = trip.answered(questions + 0.1)
    assert 2 < questions < 10
    trip.begin()
    trip.asked(0.0)
    assert not trip.answered(LEAST_S / 2)


@pytest.mark.parametrize(("threshold_s", "too_long"), [(4.0, True), (10.0, False)])
def test_heartbeats_that_are_too_short_for_the_link_are_known(threshold_s: float, too_long: bool) -> None:
    assert measured(*[1.0] * 5).too_long_for(1.0, threshold_s) is too_long
    assert not measured(1.0).too_long_for(1.0, threshold_s)  # once is no measurement
    assert not measured(*[0.001] * 5).too_long_for(0.001, 0.002)


def test_the_first_answer_may_take_longer_than_the_heartbeats_allow() -> None:
    contact = InterchangeLiveness(0.2, 1.0, 0.0)
    assert contact.verdict({"far": ConnectionState.OPEN}, "", 5.0) == ""
    assert not contact.seek_again(6.0, open_=True)
    assert contact.seek_again(6.0, open_=False)
    assert "no interchange answered within 30 s" in contact.verdict({"far": ConnectionState.OPEN}, "", FIRST_WORD_S + 1)
    assert "within 1 s" in InterchangeLiveness(0.2, 1.0, 0.0).verdict({"nowhere": ConnectionState.UNKNOWN}, "", 5.0)


def test_who_was_registered_once_gives_up_by_the_heartbeats() -> None:
    contact = InterchangeLiveness(0.2, 1.0, 0.0)
    contact.registered(0.2, 1.0, 0.0)
    contact.lost(0.0)
    assert contact.phase is Phase.SEEKING
    assert "silent" in contact.verdict({"far": ConnectionState.OPEN}, "far", 5.0)


# -- taking work in advance


def pace_of(task_s: float, trip_s: float, slots: int = 2, limit: int | None = None) -> PrefetchEstimator:
    estimator = PrefetchEstimator(slots, limit)
    for _ in range(20):
        estimator.learn(10, 10 * task_s)
    estimator.link(trip_s)
    return estimator


@given(st.floats(1e-3, 1.0), st.floats(LEAST_S, 3.0), st.integers(1, 64))
def test_the_work_taken_in_advance_lasts_for_the_round_trip(task_s: float, trip_s: float, slots: int) -> None:
    estimator = pace_of(task_s, trip_s, slots)
    lasts_s = estimator.prefetch * task_s / slots
    assert lasts_s >= trip_s or 2 * trip_s < task_s / 4 or estimator.prefetch >= 2048 * slots
    assert lasts_s <= 4 * trip_s + 0.1 + task_s


def test_a_link_that_costs_nothing_changes_nothing() -> None:
    before, after = pace_of(0.004, 0.0), pace_of(0.004, 0.2)
    assert before.prefetch < after.prefetch
    after.link(0.0)
    assert after.prefetch == before.prefetch
    assert after.depth == before.depth


def test_the_users_cap_holds_for_slow_links_too() -> None:
    assert pace_of(0.001, 1.0, limit=5).prefetch == 5
    assert pace_of(0.001, 1.0, limit=0).prefetch == 0


def test_large_tasks_are_not_taken_in_advance_without_bound() -> None:
    estimator = pace_of(0.001, 1.0)
    estimator.sized(10, 10 << 20)
    estimator.link(1.0)
    assert estimator.prefetch <= 64 + pace_of(0.001, 0.0).prefetch


def test_small_changes_of_the_link_change_nothing() -> None:
    estimator = pace_of(0.01, 0.1)
    before = estimator.prefetch
    estimator.link(0.11)
    assert estimator.prefetch == before


# -- what comes of it, in virtual time


@pytest.mark.parametrize(("trip_s", "times"), [(0.02, 1.15), (0.1, 1.15), (1.0, 1.6)])
@pytest.mark.parametrize("slots", [[2], [4, 8]])
@pytest.mark.parametrize("task_s", [0.004, 0.2])
def test_far_workers_are_busy(trip_s: float, times: float, slots: list[int], task_s: float) -> None:
    lengths = dict.fromkeys(range(1, int(5 * sum(slots) / task_s)), task_s)
    run = VirtualRun(slots, trip_s=trip_s)
    assert run.run(lengths) <= times * ideal_s([*lengths.values()], sum(slots))
    assert set(run.started.values()) == {1}


def test_far_managers_share_what_one_has_taken_in_advance() -> None:
    lengths = dict.fromkeys(range(1, 400), 0.01) | dict.fromkeys(range(400, 440), 0.5)
    run = VirtualRun([2, 2], trip_s=0.2)
    assert run.run(lengths) <= 1.5 * ideal_s([*lengths.values()], 4)


# -- telling


def test_a_notice_of_a_manager_is_a_warning_in_the_log_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    directory = ManagerDirectory("htex", Path("logs"))
    directory.add(3, Registration("m3", "7", "here", 1, 2))
    with caplog.at_level(logging.WARNING):
        directory.notice(pack_notice(3, "slow\x1b[31m\nlink"), logging.getLogger("flow.test"))
        directory.notice(pack_notice(4, "of nobody"), logging.getLogger("flow.test"))
    assert [record.message for record in caplog.records] == ["manager m3 of block 7: slow [31m link"]


class Line:
    """Remembers what is sent."""

    home = "10.0.0.1"

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)


def test_results_that_waited_long_are_told_once_a_minute() -> None:
    line, contact, outbox = Line(), InterchangeLiveness(30.0, 120.0, 0.0), ResultBuffer()
    contact.registered(30.0, 120.0, 0.0)
    offer = Registration("m3", "7", "node9", 1, 2)
    member = RegistrationSession(line, contact, offer, outbox, select.poll(), "run")  # type: ignore[arg-type]  # a line is that
    for waited_s, now in [(0.3, 5.0), (9.9, 20.0), (45.0, 80.0), (44.0, 81.0), (12.0, 139.0), (30.0, 141.0)]:
        member.acknowledged(waited_s, now)
    told = [unpack_notice(message)[1] for message in line.sent]
    assert [text.partition(" until")[0] for text in told] == [
        "results waited on node9 for 45 s",
        "results waited on node9 for 30 s",
    ]
