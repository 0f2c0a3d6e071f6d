"""Batches for engines: what goes next, how many together, and what waits."""

from __future__ import annotations

from flow_core.interfaces.call import DEFAULT_SPEC, Resources, TaskSpec, TryKey
from flow_executors.engines.batching_core import BatchingCore, Waiting

SHORT_S = 0.0001


def make(key: int, spec: TaskSpec = DEFAULT_SPEC, function: str = "f") -> Waiting:
    return Waiting(TryKey(key), b"", spec, function)


def fill(core: BatchingCore, keys: range, spec: TaskSpec = DEFAULT_SPEC, function: str = "f") -> None:
    for key in keys:
        core.add(make(key, spec, function))


def next_keys(core: BatchingCore) -> list[int]:
    """Take the next batch and have it sent; return its keys."""
    tries = core.next_batch()
    if tries:
        core.sent(tries[0].spec)
    return [one.key for one in tries]


def test_the_first_tasks_of_a_function_go_alone() -> None:
    core = BatchingCore()
    core.slots = 2
    fill(core, range(10))
    assert [next_keys(core), next_keys(core), next_keys(core)] == [[0], [1], []]


def test_short_tasks_go_together_once_their_time_is_known() -> None:
    core = BatchingCore()
    core.slots = 2
    core.took("f", SHORT_S)
    fill(core, range(1000))
    sizes = []
    while keys := next_keys(core):
        sizes.append(len(keys))
    # As much again waits at the engine as it has slots.
    assert sizes == [100, 100, 100, 100]


def test_long_tasks_go_alone() -> None:
    core = BatchingCore()
    core.slots = 2
    core.took("f", 1.0)
    fill(core, range(1000))
    assert next_keys(core) == [0]


def test_no_slot_is_left_empty_for_the_sake_of_a_longer_batch() -> None:
    core = BatchingCore()
    core.slots = 4
    core.took("f", SHORT_S)
    fill(core, range(8))
    assert [len(next_keys(core)) for _ in range(5)] == [1, 1, 1, 1, 0]


def test_a_task_of_a_function_that_is_not_known_ends_no_batch_of_others() -> None:
    core = BatchingCore()
    core.slots = 1
    core.took("f", SHORT_S)
    fill(core, range(3))
    core.add(make(3, function="g"))
    fill(core, range(4, 20))
    assert 3 not in next_keys(core)


def test_higher_priority_goes_first_and_others_in_order() -> None:
    core = BatchingCore()
    core.slots = 1
    core.add(make(1))
    core.add(make(2, TaskSpec(priority=5)))
    core.add(make(3))
    found = []
    while core.waiting:
        [key] = next_keys(core)
        found.append(key)
        core.over(DEFAULT_SPEC)
    assert found == [2, 1, 3]


def test_tasks_of_several_cores_are_given_as_far_as_slots_go() -> None:
    core = BatchingCore()
    core.slots = 4
    fill(core, range(10), TaskSpec(Resources(cores=2)))
    assert [next_keys(core) for _ in range(3)] == [[0], [1], []]


def test_what_waits_for_rare_resources_holds_up_no_others() -> None:
    core = BatchingCore()
    core.slots = 1
    fill(core, range(5), TaskSpec(Resources(gpus=1)))
    core.add(make(9))
    assert [next_keys(core), next_keys(core)] == [[0], [9]]


def test_what_is_taken_back_does_not_go() -> None:
    core = BatchingCore()
    core.slots = 1
    fill(core, range(3))
    assert core.remove(TryKey(0)) is not None
    assert core.remove(TryKey(0)) is None
    assert core.waiting == 2
    assert next_keys(core) == [1]


def test_what_an_engine_gives_back_comes_first_in_its_old_order() -> None:
    core = BatchingCore()
    core.slots = 1
    core.took("f", SHORT_S)
    fill(core, range(6))
    tries = core.next_batch()
    core.give_back(tries)
    assert core.ahead(TryKey(0)) == 0
    assert core.ahead(TryKey(5)) == 5
    again = core.next_batch()
    assert [one.key for one in again] == [one.key for one in tries]


def test_nothing_goes_while_there_are_no_slots_but_what_shows_an_elastic_engine_that_there_is_work() -> None:
    core = BatchingCore()
    fill(core, range(3))
    assert core.next_batch() == []
    core.reserve = 1
    assert next_keys(core) == [0]
    assert next_keys(core) == []


def test_thousands_that_are_taken_back_leave_nothing_behind() -> None:
    core = BatchingCore()
    core.slots = 1
    fill(core, range(5000))
    for key in range(4999):
        core.remove(TryKey(key))
    assert next_keys(core) == [4999]
    assert core.waiting == 0
    assert core.next_batch() == []
