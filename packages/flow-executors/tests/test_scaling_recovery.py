"""Recovery that goes on recovering: pauses, limits over time, blocks that are of no use, jobs that cannot be ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.interfaces.scaling import BlockLimits, Load
from flow_executors.scaling.block import Bounds
from flow_executors.scaling.pending_reasons import block_causes
from flow_executors.scaling.recovery import LEAST_ATTEMPTS, LONGEST_PAUSE_S, RecoveryPolicy
from flow_executors.scaling.scaling_core import ScalingCore
from flow_executors.scaling.strategies import htex_auto_scale, none, simple
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

RUNNING = JobStatus(JobState.RUNNING)
FAILED = JobStatus(JobState.FAILED, exit_code=3)
BOUNDS = Bounds(start_s=300.0, empty_s=10.0, cancel_again_s=30.0, cancel_s=60.0, recovery_s=600.0)
TASKS = Load(waiting=5)


def core(strategy=simple, **limits):
    given_limits = BlockLimits(**{"init_blocks": 1, "min_blocks": 0, "max_blocks": 1, **limits})
    one = ScalingCore(given_limits, strategy, 120.0, bounds=BOUNDS)
    one.decide(Load(), 0.0)
    return one


def submit(one, now=0.0):
    name = one.new_block()
    one.submitted(name, f"job-{name}", now)
    return name


def running_block(one, now=0.0):
    name = submit(one, now)
    one.changed(name, RUNNING, now)
    one.joined(name, now)
    return name


def cancel(one, decision, now):
    one.cancelling(decision.cancel, now)
    return decision.cancel


# -- attempts


def test_pauses_double_from_a_second_to_a_minute():
    recovery = RecoveryPolicy(1)
    pauses = []
    for _ in range(9):
        recovery.failed("no", 0.0)
        pauses.append(recovery.next_at)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@given(st.floats(0.0, 1.0))
def test_jitter_spreads_pauses_by_a_quarter(drawn):
    recovery = RecoveryPolicy(1, jitter=lambda: drawn)
    recovery.failed("no", 0.0)
    assert 0.75 <= recovery.next_at <= 1.25


def test_an_executor_that_worked_is_given_up_only_after_the_time_its_tasks_may_wait():
    one = core()
    one.changed(running_block(one), FAILED, 100.0)
    now, tries = 100.0, 0
    while not one.hopeless(now):
        if one.decide(TASKS, now).add:
            one.not_submitted(one.new_block(), "no", now)
            tries += 1
        now += 1.0
        assert now < 1000.0
    assert 700.0 <= now < 770.0
    assert 10 <= tries <= 16


def test_a_long_queue_is_not_held_against_attempts():
    one = core()
    one.changed(running_block(one), FAILED, 100.0)
    one.decide(TASKS, 100.0)
    for turn in range(LEAST_ATTEMPTS - 1):
        name = submit(one, 100.0)
        one.changed(name, FAILED, 4000.0 * (turn + 1))
        one.decide(TASKS, 4000.0 * (turn + 1))
        assert not one.hopeless(4000.0 * (turn + 1))


def test_time_in_which_nothing_waited_does_not_count():
    one = core()
    one.changed(running_block(one), FAILED, 100.0)
    for now in (100.0, 101.0, 103.0, 107.0):
        one.not_submitted(one.new_block(), "no", now)
    one.decide(Load(), 5000.0)
    one.decide(TASKS, 5001.0)
    assert not one.hopeless(5001.0)
    one.decide(TASKS, 5601.0)
    assert one.hopeless(5601.0)


def test_after_the_tasks_were_told_a_later_one_makes_a_fresh_attempt_within_ten_seconds():
    one = core()
    for now in range(8):
        one.not_submitted(one.new_block(), "no", float(now))
    assert one.hopeless(7.0)
    one.gave_up()
    assert one.failed == {}
    assert one.decide(TASKS, 16.0).add == 0
    assert one.decide(TASKS, 17.0).add == 1
    one.not_submitted(one.new_block(), "no", 17.0)
    assert one.hopeless(17.0)  # it never worked: one failure says enough
    one.gave_up()
    one.decide(TASKS, 27.0)
    running_block(one, 27.0)
    assert not one.recovery.told


def test_blocks_that_die_young_one_after_another_are_replaced_less_and_less_often():
    one = core()
    now, pauses = 0.0, []
    for _ in range(10):
        name = running_block(one, now)
        one.left(name, "", now + 1.0)
        one.changed(name, FAILED, now + 1.0)
        pauses.append(max(0.0, one.recovery.next_at - (now + 1.0)))
        now += 100.0
    assert pauses == [0, 0, 0, 1, 2, 4, 8, 10, 10, 10]


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.TIMEOUT])
def test_pauses_after_blocks_that_ended_well_do_not_grow_and_why_says_until_when(state):
    one = core()
    now, pauses = 0.0, []
    for _ in range(10):
        name = running_block(one, now)
        one.left(name, "", now + 1.0)
        one.changed(name, JobStatus(state, exit_code=0), now + 1.0)
        pauses.append(max(0.0, one.recovery.next_at - (now + 1.0)))
        now += 100.0
    assert pauses == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_why_says_until_when_blocks_that_die_young_are_waited_for():
    one = core()
    for number in range(6):
        name = running_block(one, 100.0 * number)
        one.left(name, "", 100.0 * number + 1.0)
        one.changed(name, FAILED, 100.0 * number + 1.0)
    texts = [cause.text for cause in block_causes(one, "h", 501.0)]
    assert "6 blocks of 'h' in a row ended within 60 s after connecting; the next is tried in 4 s" in texts
    assert not any("is tried in" in cause.text for cause in block_causes(one, "h", 506.0))


def test_one_block_is_kept_although_only_min_blocks_ask_for_it_and_the_strategy_changes_nothing():
    one = ScalingCore(BlockLimits(init_blocks=0, min_blocks=1, max_blocks=1), none)
    assert one.decide(Load(), 0.0).add == 1


@pytest.mark.parametrize(("last_given_back", "added"), [(True, 0), (False, 1)])
def test_a_last_block_given_back_by_hand_is_not_replaced_and_one_that_died_is(last_given_back, added):
    one = core(none, init_blocks=2, max_blocks=2)
    given_back, died = running_block(one), running_block(one)
    one.release(given_back, 1.0)
    ends = {given_back: JobStatus(JobState.CANCELLED), died: FAILED}
    for name in (died, given_back) if last_given_back else (given_back, died):
        one.changed(name, ends[name], 2.0)
    assert one.decide(TASKS, 3.0).add == added


# -- blocks of no use


def test_a_block_whose_managers_fell_silent_is_cancelled_and_replaced_when_its_job_is_gone():
    one = core()
    name = running_block(one)
    one.left(name, "it was silent", 50.0)
    assert one.decide(TASKS, 59.0).cancel == ()
    decision = one.decide(TASKS, 60.0)
    assert decision.condemned == decision.cancel == (name,)
    assert "it was silent" in one.blocks[name].condemned
    assert (one.active, one.occupied) == (0, 1)
    cancel(one, decision, 60.0)
    assert one.decide(TASKS, 61.0).add == 0
    one.changed(name, JobStatus(JobState.CANCELLED), 62.0)
    assert one.blocks[name].status.reason == one.blocks[name].condemned
    assert one.decide(TASKS, 62.0).add == 1


def test_a_manager_that_comes_in_time_saves_its_block():
    one = core()
    name = running_block(one)
    one.left(name, "restarted", 50.0)
    one.joined(name, 55.0)
    assert one.decide(TASKS, 1000.0).condemned == ()


def test_a_block_with_one_of_its_managers_left_still_counts():
    one = core()
    name = running_block(one)
    one.joined(name, 1.0)
    one.left(name, "", 2.0)
    assert one.decide(TASKS, 1000.0).condemned == ()


def test_a_block_that_runs_and_never_joins_counts_as_failed():
    one = core()
    one.changed(running_block(one), FAILED, 0.0)
    name = submit(one, 1.0)
    assert one.decide(TASKS, 5000.0).condemned == ()  # it waits in the queue
    one.changed(name, RUNNING, 5000.0)
    assert one.decide(TASKS, 5299.0).condemned == ()
    assert one.decide(TASKS, 5300.0).condemned == (name,)
    assert one.recovery.attempts == 1
    one.changed(name, JobStatus(JobState.CANCELLED), 5301.0)
    assert one.recovery.attempts == 1  # not a second time
    assert "block_start_timeout=300" in one.recovery.last_error


def test_a_job_that_cannot_be_cancelled_is_tried_again_and_no_longer_counts_after_its_bound():
    one = core()
    name = running_block(one)
    one.left(name, "", 0.0)
    now, tries = 10.0, 0
    while one.occupied:
        decision = one.decide(TASKS, now)
        if decision.cancel:
            cancel(one, decision, now)
            one.not_cancelled(decision.cancel, now)
            tries += 1
        now += 1.0
        assert now < 200.0
    assert decision.written_off == (name,)
    assert 70.0 <= now <= 73.0
    assert 3 <= tries <= 30
    assert one.decide(TASKS, now).add == 1
    assert name in one.jobs().values()  # whoever closes the executor tries again


def test_a_job_that_was_said_to_be_cancelled_and_runs_on_is_cancelled_again():
    one = core()
    name = running_block(one)
    one.left(name, "", 0.0)
    cancel(one, one.decide(TASKS, 10.0), 10.0)
    assert one.decide(TASKS, 39.0).cancel == ()
    assert one.decide(TASKS, 40.0).cancel == (name,)


def test_what_is_due_by_time_alone_is_known():
    one = core()
    assert one.next_look_s(0.0) == float("inf")
    name = submit(one)
    one.changed(name, RUNNING, 0.0)
    assert one.next_look_s(100.0) == 200.0
    one.joined(name, 100.0)
    assert one.next_look_s(100.0) == float("inf")
    one.left(name, "", 100.0)
    assert one.next_look_s(104.0) == 6.0


def test_who_waits_is_told_of_attempts_their_error_the_pause_and_what_else_is_amiss():
    one = core()
    one.changed(running_block(one), FAILED, 0.0)
    one.decide(TASKS, 0.0)
    one.not_submitted(one.new_block(), "the queue is closed", 0.0)
    told = " ".join(cause.text for cause in block_causes(one, "htex", 0.5, ["the scheduler is away"]))
    assert "1 block of 'htex' failed: block 1" in told
    assert "the queue is closed" in told
    assert "(recovery_timeout)" in told
    assert "the scheduler is away" in told


# -- any sequence of faults that ends


@dataclass
class Site:
    """A scheduler and its nodes in virtual time, on which everything may go wrong until the faults are over."""

    one: ScalingCore
    faults: list[str]
    over_at: float
    now: float = 0.0
    submissions: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    frozen: set[str] = field(default_factory=set)
    worked_at: float | None = None

    def fault(self) -> str:
        return self.faults.pop() if self.faults and self.now < self.over_at else ""

    def turn(self) -> None:
        one = self.one
        decision = one.decide(Load(waiting=3), self.now)
        cancel(one, decision, self.now)
        for name in decision.cancel:
            if self.fault() == "cancel fails":
                one.not_cancelled([name], self.now)
            else:
                one.changed(name, JobStatus(JobState.CANCELLED), self.now)
        for _ in range(decision.add):
            self.submit()
        assert one.occupied <= one.limits.max_blocks
        if one.hopeless(self.now):
            one.gave_up()
        self.now += 1.0

    def submit(self) -> None:
        one, fault = self.one, self.fault()
        self.submissions.append(self.now)
        name = one.new_block()
        if fault == "submit fails":
            one.not_submitted(name, "no", self.now)
            return
        one.submitted(name, f"job-{name}", self.now)
        if fault == "dies before it joins":
            one.changed(name, FAILED, self.now)
            return
        one.changed(name, RUNNING, self.now)
        if fault == "never joins":
            return
        one.joined(name, self.now)
        self.joins.append(self.now)
        if fault == "freezes":
            one.left(name, "silent", self.now)
        elif fault == "dies young":
            one.left(name, "died", self.now)
            one.changed(name, FAILED, self.now)
        else:
            self.worked_at = self.now


@settings(max_examples=150, deadline=None)
@given(
    faults=st.lists(
        st.sampled_from(
            ["submit fails", "dies before it joins", "never joins", "freezes", "dies young", "cancel fails", ""]
        ),
        max_size=40,
    ),
    limits=st.builds(BlockLimits, st.integers(1, 3), st.integers(0, 2), st.integers(2, 4), st.sampled_from([0.5, 1.0])),
    strategy=st.sampled_from([none, simple, htex_auto_scale]),
)
def test_after_any_faults_that_end_tasks_get_a_block_and_attempts_are_bounded(faults, limits, strategy):
    one = ScalingCore(limits, strategy, 120.0, bounds=BOUNDS)
    site = Site(one, [*faults], over_at=20_000.0)
    while site.worked_at is None:
        site.turn()
        assert site.now < 25_000.0
    for since in site.submissions:
        within = [when for when in site.submissions if since <= when < since + LONGEST_PAUSE_S]
        # A block that joined begins the pauses anew (1, 2, 4, 8, 16 s): five more attempts find room within the minute.
        anew = sum(since <= when < since + LONGEST_PAUSE_S for when in site.joins)
        assert len(within) <= 7 + 4 + limits.max_blocks + 5 * anew


@pytest.mark.parametrize("frozen", [1, 2, 3])
def test_frozen_blocks_are_all_replaced(frozen):
    one = core(htex_auto_scale, init_blocks=3, max_blocks=3)
    one.told({"0": (1, 0.0)})
    names = [running_block(one) for _ in range(3)]
    for name in names[:frozen]:
        one.left(name, "silent", 5.0)
    decision = one.decide(Load(waiting=9), 15.0)
    assert decision.condemned == tuple(names[:frozen])
    cancel(one, decision, 15.0)
    for name in decision.cancel:
        one.changed(name, JobStatus(JobState.CANCELLED), 16.0)
    assert one.decide(Load(waiting=9), 17.0).add == frozen


def test_a_block_that_is_put_off_is_no_attempt_and_is_asked_for_when_its_host_is_tried_again():
    one = core(init_blocks=2, max_blocks=2)
    running_block(one)
    one.put_off(one.new_block(), 60.0)
    assert one.recovery.attempts == 0
    assert len(one.blocks) == 1
    assert one.decide(TASKS, 59.0, 1).add == 0
    assert one.next_look_s(59.0) <= 1.0
    assert one.decide(TASKS, 60.0, 1).add == 1


def test_a_place_that_becomes_free_is_used_at_once_while_another_host_is_away():
    one = core(init_blocks=2, max_blocks=2)
    name = running_block(one)
    one.joined(name, 0.0)
    one.put_off(one.new_block(), 600.0)
    one.changed(name, FAILED, 100.0)
    assert one.decide(TASKS, 100.0, 1).add == 1


def test_tasks_are_told_when_one_attempt_has_shown_that_all_hosts_are_away():
    one = core(init_blocks=2, max_blocks=2)
    one.not_submitted(one.new_block(), "no route", 0.0)
    assert not one.hopeless(1.0)
    one.put_off(one.new_block(), 60.0)
    assert one.hopeless(1.0)
