"""Where a task is and what is in its way, as the interchange says; and what is made of it for users."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from interchange_world import Node, World, node

from flow_core.apps.special import task_spec
from flow_core.interfaces.call import Resources, TaskSpec
from flow_executors.pending_reasons import _ranks
from flow_executors.wire.commands import Command, Reply, Whereabouts, pack_command, pack_reply


def asked(world: World, key: int) -> Whereabouts:
    world.core.from_client(pack_command(Command(7, "why", key=key)), world.now)
    world.turn()
    place = world.replies[-1].whereabouts
    assert place is not None
    return place


def test_a_task_in_the_queue_says_what_is_ahead_of_it() -> None:
    world = World()
    world.submit(1, 2, 3)
    world.turn()
    place = asked(world, 3)
    assert (place.at, place.ahead, place.urgent, place.managers) == ("queue", 2, 0, 0)


def test_a_task_with_a_manager_says_with_which_and_what_else_that_has() -> None:
    world = World()
    world.join(node("m", 2, 2))
    world.submit(1, 2, 3)
    world.turn()
    place = asked(world, 3)
    assert (place.at, place.manager, place.workers, place.outstanding) == ("manager", "m", 2, 3)
    assert (place.slots, place.busy) == (2, 2)


def test_tasks_of_higher_priority_are_counted_apart() -> None:
    world = World()
    world.describe(1, TaskSpec(priority=5))
    world.submit(1, 2)
    world.submit(3, 4, class_id=1)
    world.turn()
    place = asked(world, 2)
    assert (place.ahead, place.urgent) == (3, 2)
    assert asked(world, 4).ahead == 1


def test_what_no_node_has_is_named_while_other_nodes_may_still_come() -> None:
    world = World()
    world.describe(1, TaskSpec(Resources(cores=8.0)))
    world.core.shared.expected.add("1")
    world.join(node("m", 4, 0))
    world.submit(1, class_id=1)
    world.turn()
    assert asked(world, 1).misfits == ("it asks for 8 cores, the node's workers have 4",)


def test_what_needs_more_than_is_free_at_once_says_so() -> None:
    world = World()
    world.describe(1, TaskSpec(Resources(cores=3.0)))
    world.join(node("m", 4, 0))
    world.submit(1, 2)
    world.turn()
    world.submit(3, class_id=1)
    world.turn()
    place = asked(world, 3)
    assert (place.misfits, place.needs, place.most_free) == ((), 3, 2)


def test_managers_that_take_nothing_are_counted() -> None:
    world = World()
    world.join(node("m", 1, 0))
    world.core.from_client(pack_command(Command(1, "hold", (), ("m",))), world.now)
    world.submit(1)
    world.turn()
    assert asked(world, 1).closed == 1


def test_the_silence_of_its_manager_is_told() -> None:
    world = World()
    world.join(node("m", 1, 0))
    world.submit(1)
    world.turn()
    assert asked(world, 1).silent_s == 0
    world.now += 3.0
    assert asked(world, 1).silent_s == 3


def test_a_task_that_is_nowhere_is_said_to_be() -> None:
    world = World()
    assert asked(world, 99).at == ""
    assert asked(world, 99) == Whereabouts()


def test_an_order_of_before_has_the_bytes_of_before() -> None:
    assert b"key" not in pack_command(Command(1, "blocks"))
    assert b"whereabouts" not in pack_reply(Reply(1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=12), st.integers(0, 3))
def test_each_waiting_task_has_a_place_of_its_own_in_one_order(batches: list[tuple[int, int]], workers: int) -> None:
    world = World()
    for class_id in (1, 2, 3):
        world.describe(class_id, TaskSpec(priority=class_id - 2))
    if workers:
        world.join(node("m", workers, 0))
    key = 0
    for class_id, number in batches:
        world.submit(*range(key + 1, key + 1 + number), **({"class_id": class_id} if class_id else {}))
        key += number
        world.now += 1.0
        world.turn()
    places = [asked(world, one) for one in range(1, key + 1)]
    assert all(place.at in ("queue", "manager") for place in places)
    waiting = sorted(place.ahead for place in places if place.at == "queue")
    assert waiting == list(range(len(waiting)))


@pytest.mark.parametrize("count", [1, 3])
def test_asking_changes_nothing(count: int) -> None:
    world = World()
    joined: Node = node("m", 1, 0)
    world.join(joined)
    world.submit(1, 2)
    world.turn()
    for _ in range(count):
        asked(world, 2)
    world.finish(joined, [1])
    world.turn()
    assert asked(world, 2).at == "manager"


def test_a_task_of_ranks_says_how_many_nodes_it_waits_for() -> None:
    world = World()
    for name in ("a", "b"):
        made = node(name, 2, 0)
        made.offer = replace(made.offer, node=name, ranks=1)
        world.join(made)
    world.submit(1)
    world.describe(1, task_spec("app", None, {"nodes": 2, "ranks_per_node": 2}))
    world.submit(7, class_id=1)
    place = asked(world, 7)
    assert (place.ranks, place.nodes, place.nodes_able, place.nodes_ready, place.nodes_kept) == (4, 2, 2, 1, 2)
    assert "needs 2 nodes of one block at once, for 4 ranks: 1 node has room for a share now" in _ranks(place)
    (first,) = [one for one in world.nodes.values() if 1 in one.tasks]
    world.finish(first, [1])
    world.turn()
    assert sorted(asked(world, 7).places or ()) == ["a", "b"]


def test_a_task_that_needs_more_nodes_than_any_block_has_says_so() -> None:
    world = World()
    made = node("a", 2, 0)
    made.offer = replace(made.offer, ranks=1)
    world.join(made)
    world.describe(1, task_spec("app", None, {"nodes": 2}))
    world.submit(7, class_id=1)
    assert "of no block more than 1 are connected" in _ranks(asked(world, 7))
