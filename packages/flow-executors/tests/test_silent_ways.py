"""When a manager tries other ways to the interchange, and when it gives up: on a clock of the test's own."""

from __future__ import annotations

import pytest

from flow_executors.manager.interchange_liveness import NO_WAY_S, ConnectionState, InterchangeLiveness
from flow_executors.manager.interchange_transports import forward_endpoint

REFUSED = {"laptop": ConnectionState.REFUSED}


def registered(threshold_s: float = 120.0, period_s: float = 30.0) -> InterchangeLiveness:
    liveness = InterchangeLiveness(period_s, threshold_s, 0.0)
    liveness.registered(period_s, threshold_s, 0.0)
    liveness.heard(0.0)
    return liveness


@pytest.mark.parametrize(("threshold_s", "period_s", "silent_at"), [(120, 30, 60), (8, 2, 4), (40, 36, 45)])
def test_other_ways_are_tried_after_half_of_the_threshold_and_not_before_an_answer_is_due(
    threshold_s: float, period_s: float, silent_at: float
) -> None:
    liveness = registered(threshold_s, period_s)
    assert not liveness.silent(silent_at - 0.1)
    assert liveness.silent(silent_at)
    liveness.heard(silent_at)
    assert not liveness.silent(silent_at + 0.1)


def test_who_searches_is_not_silent() -> None:
    liveness = registered()
    liveness.lost(1.0)
    assert not liveness.silent(1000.0)


def test_a_loop_wakes_up_for_the_silence_and_then_for_the_end() -> None:
    liveness = registered(period_s=1000.0, threshold_s=2000.0)
    assert liveness.heartbeat_due(0.0)
    assert liveness.deadline(0.0) == 1000.0
    assert liveness.heartbeat_due(1000.0)
    assert liveness.deadline(1100.0) == 1250.0
    assert liveness.deadline(1300.0) == 2000.0


@pytest.mark.parametrize(("forwarded", "gives_up"), [(False, True), (True, False)])
def test_an_address_that_refuses_is_the_end_only_where_nothing_is_forwarded(forwarded: bool, gives_up: bool) -> None:
    liveness = registered()
    liveness.lost(0.0)
    assert liveness.verdict(REFUSED, "laptop", 0.0, forwarded) == ""
    assert bool(liveness.verdict(REFUSED, "laptop", 10.0, forwarded)) is gives_up
    assert liveness.verdict(REFUSED, "laptop", 121.0, forwarded)


def test_who_has_tasks_waits_for_a_script_that_sleeps_and_nobody_else_does() -> None:
    liveness = InterchangeLiveness(30.0, 120.0, 0.0, sleep_s=3600.0)
    liveness.registered(30.0, 120.0, 0.0)
    assert liveness.verdict(REFUSED, "laptop", 121.0, owes=False)
    assert liveness.verdict(REFUSED, "laptop", 3599.0, owes=True) == ""
    assert "silent for more than 3600 s" in liveness.verdict(REFUSED, "laptop", 3601.0, owes=True)


def test_who_waits_for_a_script_that_sleeps_wakes_up_for_heartbeats_and_the_end() -> None:
    liveness = InterchangeLiveness(1000.0, 2000.0, 0.0, sleep_s=5500.0)
    liveness.registered(1000.0, 2000.0, 0.0)
    woken, now = [], 0.0
    while now < 5500.0:
        now = liveness.deadline(now)
        assert liveness.due(now)
        woken.append(now)
        liveness.heartbeat_due(now)
    assert woken == [0.0, 1000.0, 1250.0, 2000.0, 3000.0, 4000.0, 5000.0, 5500.0]


def test_silence_is_looked_at_before_the_next_heartbeat() -> None:
    liveness = registered()
    assert liveness.heartbeat_due(0.0)
    assert liveness.heartbeat_due(59.0)
    assert not liveness.due(59.9)
    assert liveness.due(60.0)


def test_who_was_never_answered_gives_up_soon() -> None:
    liveness = InterchangeLiveness(30.0, 120.0, 0.0)
    assert liveness.verdict(REFUSED, "", NO_WAY_S - 1) == ""
    assert "no interchange answered within 30 s" in liveness.verdict(REFUSED, "", NO_WAY_S + 1)


def test_forwards_have_the_names_that_zeromq_knows() -> None:
    assert forward_endpoint("unix:/home/a b/x.sock") == "ipc:///home/a b/x.sock"
    assert forward_endpoint("127.0.0.1:5") == "tcp://127.0.0.1:5"
