"""How many blocks: the formula, the strategies, and the life of blocks."""

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flow_core.errors import ConfigurationError
from flow_core.interfaces.scaling import BlockLimits, Load, ScalingView
from flow_executors.scaling.scaling_core import ScalingCore
from flow_executors.scaling.strategies import htex_auto_scale, none, simple, strategy_of, wanted_blocks
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

RUNNING = JobStatus(JobState.RUNNING)
COMPLETED = JobStatus(JobState.COMPLETED)
FAILED = JobStatus(JobState.FAILED, exit_code=1)


# -- the formula


@pytest.mark.parametrize(("active", "blocks"), [(0, 1), (1, 1), (2, 1), (4, 1), (5, 2), (8, 2), (9, 3), (99, 4)])
def test_two_workers_a_block_and_parallelism_one_half_bring_the_second_block_with_the_fifth_task(active, blocks):
    assert wanted_blocks(active, 2, BlockLimits(init_blocks=1, min_blocks=1, max_blocks=4, parallelism=0.5)) == blocks


@pytest.mark.parametrize(("active", "blocks"), [(0, 0), (2, 1), (4, 1), (5, 2)])
def test_from_no_blocks_two_tasks_bring_one_and_five_overflow_into_the_second(active, blocks):
    assert wanted_blocks(active, 2, BlockLimits(init_blocks=0, min_blocks=0, max_blocks=4, parallelism=0.5)) == blocks


@pytest.mark.parametrize(("active", "blocks"), [(0, 0), (1, 1), (1000, 1)])
def test_parallelism_zero_uses_as_little_as_possible(active, blocks):
    assert wanted_blocks(active, 4, BlockLimits(max_blocks=9, parallelism=0.0)) == blocks


@pytest.mark.parametrize(("active", "blocks"), [(1, 1), (4, 1), (5, 2), (36, 9), (400, 9)])
def test_parallelism_one_uses_as_much_as_possible(active, blocks):
    assert wanted_blocks(active, 4, BlockLimits(max_blocks=9, parallelism=1.0)) == blocks


def test_one_block_is_enough_to_find_out_what_a_block_brings():
    assert wanted_blocks(500, 0, BlockLimits(max_blocks=9)) == 1


@given(
    st.integers(0, 10**6),
    st.integers(0, 500),
    st.builds(
        BlockLimits, min_blocks=st.integers(0, 5), max_blocks=st.integers(5, 50), parallelism=st.floats(0.0, 1.0)
    ),
)
def test_the_number_stays_within_its_bounds_and_grows_with_the_load(active, slots, limits):
    found = wanted_blocks(active, slots, limits)
    assert limits.min_blocks <= found <= limits.max_blocks
    assert found <= wanted_blocks(active + 1, slots, limits)
    assert found >= (1 if active else 0)


# -- strategies


def view(waiting=0, running=0, active=1, idle=(), partial=True, minimum=0, maximum=10, slots=2):
    load = Load(waiting, running, slots_per_block=slots)
    return ScalingView(load, BlockLimits(1, minimum, maximum, 1.0), active, idle, 120.0, partial)


def test_none_changes_nothing():
    assert none(view(waiting=100)) == 0
    assert none(view(idle=(900.0,))) == 0


def test_simple_adds_what_is_missing_up_to_the_most():
    assert simple(view(waiting=9)) == 4
    assert simple(view(waiting=900)) == 9


def test_simple_releases_idle_blocks_only_when_nothing_is_active():
    assert simple(view(active=3, idle=(130.0, 130.0, 10.0))) == -2
    assert simple(view(running=1, active=3, idle=(130.0, 130.0))) == 0


def test_nothing_is_released_below_the_least():
    assert simple(view(active=2, idle=(130.0, 130.0), minimum=2)) == 0
    assert htex_auto_scale(view(active=2, idle=(130.0, 130.0), minimum=1)) == -1


def test_auto_scale_releases_idle_blocks_while_others_work():
    assert htex_auto_scale(view(running=1, active=3, idle=(130.0, 130.0))) == -2
    assert htex_auto_scale(view(running=1, active=3, idle=(130.0, 130.0), partial=False)) == 0


def test_strategies_have_names():
    assert strategy_of("simple") is simple
    assert strategy_of(None) is none
    mine = lambda view: 1  # noqa: E731 - a user's own strategy is any function
    assert strategy_of(mine) is mine
    with pytest.raises(ConfigurationError, match="did you mean 'simple'"):
        strategy_of("simpel")


# -- blocks


def core(strategy=simple, **limits):
    return ScalingCore(BlockLimits(**{"init_blocks": 1, "min_blocks": 0, "max_blocks": 4, **limits}), strategy, 120.0)


def submit(one, now=0.0):
    name = one.new_block()
    one.submitted(name, f"job-{name}", now)
    return name


def running_block(one, now=0.0):
    name = submit(one, now)
    one.changed(name, RUNNING, now)
    one.joined(name, now)
    one.told({name: (2, 0.0)})
    return name


def test_the_first_look_asks_for_the_first_blocks_whatever_the_strategy():
    one = core(none, init_blocks=3)
    assert one.decide(Load(), 0.0).add == 3
    assert one.decide(Load(), 5.0).add == 0


def test_tasks_of_several_slots_bring_as_many_blocks_as_they_fill():
    one = core(init_blocks=0)
    one.decide(Load(), 0.0)
    running_block(one)
    # Two tasks of two slots each, of which one runs: as tasks they would fit the block's two slots.
    load = Load(waiting=0, running=2, slots=2)
    assert one.decide(one.in_slots(load), 1.0).add == 0
    one.wide = (1, 2, 1)
    assert one.in_slots(load) == Load(waiting=2, running=2, slots=2)
    assert one.decide(one.in_slots(load), 2.0).add == 1


def test_a_task_of_several_slots_that_waits_beside_free_ones_counts_as_waiting():
    one = core()
    one.wide = (1, 4, 0)
    assert one.in_slots(Load(waiting=0, running=1, slots=2)) == Load(waiting=4, running=0, slots=2)


def test_more_than_the_most_is_never_asked_for_even_by_a_users_strategy():
    one = core(lambda view: 100, init_blocks=0, max_blocks=3)
    one.decide(Load(), 0.0)
    submit(one)
    assert one.decide(Load(waiting=5), 1.0).add == 2


def test_a_block_on_its_way_out_still_counts_against_the_most():
    one = core(max_blocks=1)
    one.decide(Load(), 0.0)
    name = running_block(one)
    one.release(name, 10.0)
    assert one.active == 0
    assert one.decide(Load(waiting=5), 11.0).add == 0


def test_an_idle_block_is_released_and_its_job_cancelled_once_its_managers_have_left():
    one = core()
    one.decide(Load(), 0.0)
    name = running_block(one)
    one.told({name: (2, 121.0)})
    assert one.decide(Load(), 200.0).release == (name,)
    one.release(name, 200.0)
    assert one.decide(Load(), 201.0).cancel == ()
    one.left(name, "", 201.0)
    assert one.decide(Load(), 202.0).cancel == (name,)
    one.cancelling([name], 202.0)
    one.changed(name, JobStatus(JobState.CANCELLED), 203.0)
    assert one.blocks[name].status.state is JobState.SCALED_IN


def test_a_block_that_does_not_manage_to_drain_is_cancelled_in_the_end():
    one = core()
    one.decide(Load(), 0.0)
    name = running_block(one)
    one.release(name, 200.0)
    assert one.decide(Load(), 259.0).cancel == ()
    assert one.decide(Load(), 261.0).cancel == (name,)


def test_a_block_still_in_the_queue_is_given_up_when_nothing_needs_it():
    one = core()
    one.decide(Load(), 0.0)
    name = submit(one)
    one.decide(Load(waiting=1), 50.0)
    assert one.decide(Load(), 160.0).release == ()
    assert one.decide(Load(), 171.0).release == (name,)


def test_one_block_that_never_connected_is_hopeless_when_one_was_to_be_started():
    one = core()
    one.decide(Load(), 0.0)
    one.changed(submit(one), FAILED, 1.0)
    assert one.hopeless(1.0)


def test_failed_blocks_are_not_hopeless_while_another_lives_and_forgotten_when_it_connects():
    one = core(init_blocks=2)
    first, second, third = submit(one), submit(one), submit(one)
    one.changed(first, FAILED, 1.0)
    one.changed(second, COMPLETED, 1.0)
    assert not one.hopeless(1.0)
    one.joined(third, 1.0)
    assert one.failed == {}


def test_a_block_that_worked_and_ended_is_no_failure():
    one = core()
    name = running_block(one)
    one.left(name, "", 900.0)
    one.changed(name, JobStatus(JobState.TIMEOUT), 900.0)
    assert not one.hopeless(900.0)
    assert one.decide(Load(), 900.0).add == 1  # the first look
    assert one.counts() == (("TIMEOUT", 1),)


def test_after_failures_blocks_are_asked_for_one_by_one_with_pauses():
    one = core(init_blocks=0)
    one.decide(Load(), 0.0)
    one.not_submitted(one.new_block(), "the scheduler said no", 10.0)
    assert one.decide(Load(waiting=100), 10.5).add == 0
    assert one.decide(Load(waiting=100), 11.0).add == 1
    one.not_submitted(one.new_block(), "the scheduler said no", 11.0)
    assert one.decide(Load(waiting=100), 12.5).add == 0
    assert one.decide(Load(waiting=100), 13.0).add == 1


def test_an_ended_block_stays_ended():
    one = core()
    name = submit(one)
    one.changed(name, FAILED, 1.0)
    assert not one.changed(name, RUNNING, 2.0)


class Blocks(RuleBasedStateMachine):
    """Any order of events: bounds hold, and only idle blocks are released."""

    @initialize(minimum=st.integers(0, 2), maximum=st.integers(2, 5), auto=st.booleans())
    def begin(self, minimum, maximum, auto):
        strategy = htex_auto_scale if auto else simple
        self.core = ScalingCore(BlockLimits(1, minimum, maximum, 1.0), strategy, 120.0)
        self.now = 0.0
        self.load = Load()

    @rule(waiting=st.integers(0, 30), running=st.integers(0, 10), seconds=st.sampled_from([1.0, 60.0, 400.0]))
    def look(self, waiting, running, seconds):
        self.now += seconds
        before = self.core.occupied
        decision = self.core.decide(Load(waiting, running), self.now)
        assert not decision.add or before + decision.add <= self.core.limits.max_blocks
        for _ in range(decision.add):
            submit(self.core, self.now)
        for name in decision.release:
            block = self.core.blocks[name]
            assert block.active
            assert not (block.managers and block.idle_for_s < 120.0)
            self.core.release(name, self.now)
        for name in decision.replace:
            assert self.core.lacking
            assert not decision.add
            assert before == self.core.limits.max_blocks
            self.core.release(name, self.now)
            self.core.finish(name, self.now)
        self.core.cancelling(decision.cancel, self.now)
        for name in decision.cancel:
            self.core.changed(name, JobStatus(JobState.CANCELLED), self.now)

    @rule(nodes=st.integers(0, 4))
    def tasks_of_ranks_lack_nodes(self, nodes):
        self.core.lacking = (nodes,) if nodes else ()

    @precondition(lambda self: self.core.blocks)
    @rule(
        data=st.data(),
        what=st.sampled_from(["run", "join", "leave", "fail", "complete", "idle", "busy"]),
    )
    def something_happens(self, data, what):
        name = data.draw(st.sampled_from(sorted(self.core.blocks)))
        block = self.core.blocks[name]
        if what == "join" and not block.ended:
            self.core.joined(name, self.now)
        elif what == "leave":
            self.core.left(name, "", self.now)
        elif what in ("idle", "busy") and block.managers:
            self.core.told({name: (2, 500.0 if what == "idle" else 0.0)})
        elif what in ("run", "fail", "complete"):
            self.core.changed(name, {"run": RUNNING, "fail": FAILED, "complete": COMPLETED}[what], self.now)

    @invariant()
    def bounds_hold(self):
        if hasattr(self, "core"):
            assert self.core.active <= self.core.occupied <= self.core.limits.max_blocks
            assert sum(count for _, count in self.core.counts()) == len(self.core.blocks)


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_block_whose_nodes_are_held_does_not_count_and_another_one_comes_in_its_place():
    core = ScalingCore(BlockLimits(2, 0, 3, 1.0), simple, slots_per_block=2)
    assert core.decide(Load(), 0.0).add == 2
    for _ in range(2):
        name = core.new_block()
        core.submitted(name, f"job {name}", 0.0)
        core.changed(name, RUNNING, 1.0)
        core.joined(name, 1.0)
    busy = Load(waiting=2, running=2, slots_per_block=2)
    assert core.decide(busy, 2.0).add == 0
    core.bar({"1"})
    assert core.active == 1
    assert core.decide(busy, 3.0).add == 1  # as far as max_blocks allows
    core.bar(set())
    assert core.decide(busy, 4.0).add == 0
    core.bar({"1"})
    core.left("1", "it died", 5.0)
    assert core.decide(busy, 5.0 + core.bounds.empty_s).condemned == ("1",)
