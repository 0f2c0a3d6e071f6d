"""Whether a process was away: on clocks of the test's own."""

from __future__ import annotations

from flow_executors.common.loop_waits import Pauses


def test_a_machine_that_slept_was_away_though_its_monotonic_clock_stood_still() -> None:
    asleep_s = 100.0
    pauses = Pauses(lambda: asleep_s)
    assert pauses.away_s(-5.0, 10.0) == 0
    asleep_s = 700.0
    assert pauses.away_s(-5.0, 10.1) == 0  # looked at a moment ago
    assert pauses.away_s(-5.0, 10.3) == 600.0
    assert pauses.away_s(-5.0, 10.6) == 0


def test_a_process_that_was_stopped_was_away_and_one_that_is_late_was_not() -> None:
    pauses = Pauses(lambda: 0.0)
    assert pauses.away_s(30.0, 10.0) == 30.0
    assert pauses.away_s(1.5, 20.0) == 0
