"""Blocks that have lost nodes which tasks of ranks need: another block comes, or takes their place."""

from __future__ import annotations

import pytest

from flow_core.interfaces.scaling import BlockLimits, Load, Strategy
from flow_executors.scaling.pending_reasons import block_causes
from flow_executors.scaling.scaling_core import DRAIN_TIMEOUT_S, Decision, ScalingCore
from flow_executors.scaling.strategies import htex_auto_scale, none, simple
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

WIDE = Load(waiting=1, slots_per_block=4)


def core(max_blocks: int, strategy: Strategy = simple) -> ScalingCore:
    one = ScalingCore(BlockLimits(1, 0, max_blocks, 1.0), strategy, slots_per_block=4)
    assert one.decide(Load(), 0.0).add == 1
    return one


def block(one: ScalingCore, now: float, managers: int = 2) -> str:
    name = one.new_block()
    one.submitted(name, f"job {name}", now)
    one.changed(name, JobStatus(JobState.RUNNING), now)
    for _ in range(managers):
        one.joined(name, now)
    return name


def half(one: ScalingCore) -> str:
    """Return a block that had two managers and has lost one, while a task waits for two."""
    name = block(one, 1.0)
    one.left(name, "it died", 10.0)
    one.lacking = (2,)
    return name


def drain(one: ScalingCore, decision: Decision, now: float) -> None:
    for name in decision.replace:
        one.release(name, now)
        one.finish(name, now)


def end(one: ScalingCore, name: str, now: float) -> None:
    one.left(name, "it was drained", now)
    assert one.decide(WIDE, now).cancel == (name,)
    one.cancelling([name], now)
    one.changed(name, JobStatus(JobState.CANCELLED), now)
    one.lacking = ()  # nothing is connected: nobody knows


@pytest.mark.parametrize("strategy", [none, simple, htex_auto_scale])
def test_another_block_is_asked_for_where_there_is_room(strategy: Strategy) -> None:
    one = core(2, strategy)
    half(one)
    found = one.decide(WIDE, 11.0)
    assert (found.add, found.replace) == (1, ())


def test_no_more_blocks_are_asked_for_while_one_is_on_its_way() -> None:
    one = core(4)
    half(one)
    name = one.new_block()
    one.submitted(name, "job", 11.0)
    assert one.decide(WIDE, 12.0).add == 0
    one.changed(name, JobStatus(JobState.RUNNING), 13.0)
    one.joined(name, 13.0)
    assert one.decide(WIDE, 14.0).add == 0  # its second manager may follow
    assert one.decide(WIDE, 13.0 + one.bounds.start_s).add == 1


@pytest.mark.parametrize("strategy", [none, simple, htex_auto_scale])
def test_where_there_is_no_room_the_block_is_drained_and_another_takes_its_place(strategy: Strategy) -> None:
    one = core(1, strategy)
    name = half(one)
    found = one.decide(WIDE, 11.0)
    assert (found.add, found.replace) == (0, (name,))
    drain(one, found, 11.0)
    assert one.decide(WIDE, 12.0) == Decision()
    end(one, name, 13.0)
    assert one.decide(WIDE, 14.0).add == 1
    one.joined(block(one, 15.0), 15.0)
    assert one.decide(WIDE, 16.0) == Decision()


def test_what_runs_on_such_a_block_has_as_long_as_it_needs() -> None:
    one = core(1)
    name = half(one)
    drain(one, one.decide(WIDE, 11.0), 11.0)
    assert one.decide(WIDE, 12.0 + 10 * DRAIN_TIMEOUT_S).cancel == ()
    end(one, name, 13.0 + 10 * DRAIN_TIMEOUT_S)


def test_of_several_such_blocks_the_idlest_goes_first_and_the_others_stay_meanwhile() -> None:
    one = core(2)
    busy, idle = block(one, 1.0), block(one, 1.0)
    for name in (busy, idle):
        one.left(name, "it died", 10.0)
    one.told({busy: (2, 0.0), idle: (2, 3.0)})
    one.lacking = (2,)
    found = one.decide(WIDE, 11.0)
    assert found.replace == (idle,)
    drain(one, found, 11.0)
    assert one.decide(WIDE, 12.0) == Decision()


def test_blocks_stay_while_no_waiting_task_lacks_their_nodes() -> None:
    one = core(2)
    half(one)
    one.lacking = ()
    assert one.decide(WIDE, 11.0) == Decision()


def test_a_task_that_lacks_nodes_counts_though_the_load_takes_it_for_running() -> None:
    one = core(2)
    half(one)
    assert one.decide(Load(running=1, slots=2, slots_per_block=4), 11.0).add == 1


def test_a_block_whose_manager_came_back_stays() -> None:
    one = core(1)
    one.joined(half(one), 11.0)
    assert one.decide(WIDE, 12.0) == Decision()


def test_no_block_is_replaced_for_a_task_of_more_nodes_than_any_block_ever_had() -> None:
    one = core(2)
    half(one)
    one.lacking = (3,)
    assert one.decide(WIDE, 11.0) == Decision()
    one.lacking = (2, 3)
    assert one.decide(WIDE, 12.0).add == 1


def test_blocks_that_lose_nodes_young_one_after_another_are_replaced_after_pauses() -> None:
    one, now, pauses = core(1), 1.0, []
    for _ in range(6):
        name = block(one, now)
        one.left(name, "it died", now)
        one.lacking = (2,)
        drain(one, one.decide(WIDE, now), now)
        end(one, name, now)
        since = now
        while not one.decide(WIDE, now).add:
            now += 0.5
            assert now < since + 60.0
        pauses.append(now - since)
    assert pauses[0] == 0.0
    assert pauses[-1] > 0.0


def causes(one: ScalingCore) -> list[str]:
    return [cause.text for cause in block_causes(one, "htex", 12.0)]


def test_why_says_what_becomes_of_a_block_that_has_lost_nodes() -> None:
    one = core(2)
    half(one)
    text = "block 0 of 'htex' has 1 of its 2 managers left: another block is to take the tasks that need more"
    assert text in causes(one)
    one = core(1)
    half(one)
    drain(one, one.decide(WIDE, 11.0), 11.0)
    text = "it takes nothing new, and is replaced when what runs there is over"
    assert f"block 0 of 'htex' has 1 of its 2 managers left: {text}" in causes(one)


def test_why_names_nodes_that_no_block_ever_had() -> None:
    one = core(1)
    block(one, 1.0, managers=1)
    one.lacking = (2,)
    assert (
        "tasks wait for 2 nodes of one block, and no block of 'htex' has had managers on more than 1 so far: its "
        "launcher, or nodes_per_block of its provider, starts no more"
    ) in causes(one)
