"""What a task needs: which managers can take it, in which order, and when none can."""

from __future__ import annotations

from dataclasses import replace

from interchange_world import GPU, World, node

from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_executors.wire.commands import KeyChange
from flow_executors.wire.messages import ALL


def test_a_task_that_fits_on_no_node_is_refused_with_a_reason() -> None:
    world = World()
    world.describe(1, GPU)
    world.submit(5, class_id=1)
    assert world.outcomes == {}
    world.join(node())
    assert world.outcomes == {}
    world.advance(1.0)
    assert world.outcomes == {5: [Verdict.REFUSED]}
    assert "it asks for 1 GPUs, the node has 0" in world.reasons[5]
    assert "Ask for less with resource_specification=, or have" in world.reasons[5]


def test_a_task_that_fits_on_no_node_waits_a_while_for_blocks_that_were_asked_for() -> None:
    world = World()
    world.core.admitted(KeyChange(admit=(("key", "0"), ("other", "1"))), world.now)
    world.describe(1, GPU)
    world.submit(5, class_id=1)
    world.submit(6, class_id=1)
    world.join(node())
    world.advance(20.0)
    assert world.outcomes == {}
    big = world.join(node("big", block="1", gpus=1.0))
    assert set(big.tasks) == {5}
    world.submit(7, class_id=1)
    world.advance(100.0)
    assert world.outcomes == {}


def test_a_task_longer_than_any_block_is_refused_with_a_reason() -> None:
    world = World()
    short = node()
    short.offer = replace(short.offer, ends_at_ns=int((world.now + 30) * 1e9))
    world.join(short)
    world.describe(1, TaskSpec(running_time_min_s=60.0))
    world.submit(1, class_id=1)
    world.advance(1.0)
    assert world.outcomes == {1: [Verdict.REFUSED]}
    assert "it needs a block that lasts 60 s" in world.reasons[1]
    assert "a block lasts 30 s (walltime)" in world.reasons[1]


def test_thousands_of_classes_cost_no_more_a_turn_than_a_few() -> None:
    world = World()
    manager = world.join(node(workers=1, prefetch=0))
    for class_id in range(1, 3001):
        world.describe(class_id, TaskSpec(Resources(memory_mb=class_id), priority=class_id % 7))
        world.submit(class_id, class_id=class_id)
    looked = 0
    queue = type(world.core.waiting.default)
    before = queue.take_into

    def counting(self: object, *arguments: object) -> None:
        nonlocal looked
        looked += 1
        before(self, *arguments)  # type: ignore[arg-type]  # passed on as it came

    queue.take_into = counting  # type: ignore[method-assign,assignment]  # for this test
    try:
        order = []
        for _ in range(50):
            (key,) = manager.tasks
            order.append(key)
            world.finish(manager, [key])
            world.turn()
    finally:
        queue.take_into = before  # type: ignore[method-assign]  # for this test
    assert looked == 50
    assert order[1:] == [key for key in range(1, 3001) if key % 7 == 6][:49]


def test_smaller_tasks_pass_one_that_waits_for_what_is_not_free() -> None:
    world = World()
    manager = world.join(node(workers=2, prefetch=0, gpus=1.0))
    world.describe(1, GPU)
    world.describe(2, TaskSpec(walltime_s=5.0))
    world.submit(1, 2, class_id=1)
    world.submit(3, class_id=2)
    assert set(manager.tasks) == {1, 3}


def test_an_urgent_class_gets_managers_that_prefetching_keeps_busy() -> None:
    world = World()
    managers = [world.join(node(name, workers=1, prefetch=3)) for name in "abcd"]
    world.submit(*range(100))
    world.describe(1, TaskSpec(priority=5))
    world.submit(1000, 1001, class_id=1)
    recalled = [manager for manager in managers if (manager.peer, ALL) in world.recalls]
    assert len(recalled) == 2
    for manager in recalled:
        world.give_back(manager, sorted(manager.tasks)[1:])
        world.turn()
        world.finish(manager, list(manager.tasks))
        world.turn()
    assert {key for manager in managers for key in manager.tasks if key >= 1000} == {1000, 1001}
    for manager in recalled:
        world.finish(manager, [key for key in manager.tasks if key >= 1000])
        world.turn()
    assert all(len(manager.tasks) == 4 for manager in managers)


def test_tasks_of_other_classes_go_only_where_they_can_start() -> None:
    world = World()
    manager = world.join(node(workers=4, prefetch=8, gpus=2.0))
    world.describe(1, GPU)
    world.submit(1, 2, 3, class_id=1)
    assert set(manager.tasks) == {1, 2}
    world.finish(manager, [1])
    world.turn()
    assert set(manager.tasks) == {2, 3}


def test_a_wide_task_is_not_starved_by_narrow_ones() -> None:
    world = World()
    manager = world.join(node(workers=2, prefetch=2))
    world.submit(*range(20))
    world.describe(1, TaskSpec(Resources(cores=2.0)))
    world.submit(100, class_id=1)
    for _ in range(20):
        running = sorted(manager.tasks)[:1]
        if 100 in manager.tasks:
            break
        world.finish(manager, running)
        world.turn()
    assert 100 in manager.tasks


def test_priority_decides_and_equals_go_by_arrival() -> None:
    world = World()
    for class_id, priority in ((1, 0), (2, 5), (3, 0)):
        world.describe(class_id, TaskSpec(priority=priority, walltime_s=float(class_id)))
        world.submit(class_id * 10, class_id=class_id)
        world.now += 0.01
    manager = world.join(node(workers=1, prefetch=0))
    order = []
    for _ in range(3):
        (key,) = manager.tasks
        order.append(key)
        world.finish(manager, [key])
        world.turn()
    assert order == [20, 10, 30]


def test_a_block_that_ends_too_soon_gets_no_long_task() -> None:
    world = World()
    world.describe(1, TaskSpec(running_time_min_s=60.0))
    short = node("short")
    short.offer = replace(short.offer, ends_at_ns=int((world.now + 30) * 1e9))
    world.join(short)
    world.submit(1, class_id=1)
    assert short.tasks == {}
    long = node("long")
    long.offer = replace(long.offer, ends_at_ns=int((world.now + 90) * 1e9))
    assert set(world.join(long).tasks) == {1}
