"""Tasks that failed on a node go to others first, and nodes that are held get nothing."""

from __future__ import annotations

from dataclasses import replace

from interchange_world import Node, World, node

from flow_core.interfaces.call import DEFAULT_SPEC
from flow_executors.wire.commands import Command, pack_command

AVOIDING = replace(DEFAULT_SPEC, avoid=("bad",))


def on(name: str, where: str, workers: int = 1, prefetch: int = 0) -> Node:
    made = node(name, workers=workers, prefetch=prefetch)
    made.offer = replace(made.offer, node=where)
    return made


def bar(world: World, *nodes: str) -> None:
    world.core.from_client(pack_command(Command(1, "nodes", nodes=nodes)), world.now)
    world.turn()


def test_a_task_goes_to_another_node_than_that_on_which_it_failed() -> None:
    world = World()
    bad, good = world.join(on("a", "bad", workers=4)), world.join(on("b", "good"))
    world.describe(7, AVOIDING)
    world.submit(1, 2, class_id=7)
    assert (sorted(bad.tasks), len(good.tasks)) == ([], 1)  # the other one waits, though the bad node is idle
    world.finish(good, list(good.tasks))
    world.turn()
    assert (sorted(bad.tasks), len(good.tasks)) == ([], 1)


def test_it_goes_back_where_there_is_no_other_node() -> None:
    world = World()
    bad = world.join(on("a", "bad"))
    world.describe(7, AVOIDING)
    world.submit(1, class_id=7)
    assert sorted(bad.tasks) == [1]


def test_it_goes_back_after_a_while_where_the_others_are_busy() -> None:
    world = World(heartbeat_threshold_s=1000.0)
    bad, good = world.join(on("a", "bad")), world.join(on("b", "good"))
    world.submit(1, 2)
    world.finish(bad, list(bad.tasks))
    world.describe(7, AVOIDING)
    world.submit(3, class_id=7)
    world.advance(10)
    assert not bad.tasks
    world.advance(10)
    assert sorted(bad.tasks) == [3]
    assert good.tasks


def test_tasks_without_a_past_go_everywhere() -> None:
    world = World()
    bad, good = world.join(on("a", "bad")), world.join(on("b", "good"))
    world.submit(1, 2)
    assert (len(bad.tasks), len(good.tasks)) == (1, 1)


def test_a_node_that_is_held_gets_nothing_and_gives_back_what_has_not_started() -> None:
    world = World()
    bad = world.join(on("a", "bad", prefetch=3))
    world.submit(1, 2, 3, 4)
    assert len(bad.tasks) == 4
    good = world.join(on("b", "good"))
    bar(world, "bad")
    assert [peer for peer, _ in world.recalls] == [bad.peer]
    world.give_back(bad, sorted(bad.tasks)[1:])
    world.turn()
    assert (len(bad.tasks), len(good.tasks)) == (1, 1)
    world.finish(bad, list(bad.tasks))
    late = world.join(on("c", "bad"))  # another manager of the same node
    world.turn()
    assert (bad.tasks, late.tasks) == ({}, {})
    bar(world)
    world.turn()
    assert (len(bad.tasks), len(late.tasks)) == (1, 1)


def test_a_node_that_is_held_is_no_other_node() -> None:
    world = World()
    bad, held = world.join(on("a", "bad")), world.join(on("b", "held"))
    bar(world, "held")
    world.describe(7, AVOIDING)
    world.submit(1, class_id=7)
    assert (sorted(bad.tasks), held.tasks) == ([1], {})


def test_the_question_where_a_task_is_tells_of_nodes_that_it_avoids() -> None:
    world = World()
    world.join(on("a", "bad"))
    world.join(on("b", "good"))
    world.submit(1, 2)
    world.describe(7, AVOIDING)
    world.submit(3, class_id=7)
    world.core.from_client(pack_command(Command(2, "why", key=3)), world.now)
    world.turn()
    place = world.replies[-1].whereabouts
    assert place is not None
    assert (place.at, place.avoided) == ("queue", ("bad",))
