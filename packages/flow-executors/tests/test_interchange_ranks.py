"""Tasks of ranks in the interchange: their parts at several managers, and what becomes of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from interchange_world import Node, World, node

from flow_core.apps.special import task_spec
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_executors.wire.commands import Command, pack_command
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import pack_cancel, pack_exit, unpack_loss
from flow_executors.wire.ranks import (
    Part,
    RankPlacement,
    RemoteStep,
    pack_remote,
    unpack_break,
    unpack_placement,
    unpack_release,
    unpack_remote,
    unpack_reserve,
)


def rank_node(name: str, workers: int = 2, block: str = "0", prefetch: int = 0, gpus: float = 0.0) -> Node:
    made = node(name, workers, prefetch, gpus=gpus)
    made.offer = replace(made.offer, node=name, block=block, ranks=1)
    return made


class RankWorld(World):
    """A world that reads the messages of tasks of ranks."""

    def down(self, manager: Node, kind: Kind) -> list[bytes]:
        return [message for peer, message in self.sent if peer == manager.peer and message[0] == kind]

    def placement(self, manager: Node) -> RankPlacement:
        return unpack_placement(self.down(manager, Kind.PLACEMENT)[-1])[1]

    def parts(self, manager: Node) -> dict[int, Part]:
        kept: dict[int, Part] = {}
        for peer, message in self.sent:
            if peer == manager.peer and message[0] == Kind.RESERVE:
                found = unpack_reserve(message)
                if found.all:
                    kept.clear()
                kept.update((part.key, part) for part in found.parts)
            elif peer == manager.peer and message[0] == Kind.RELEASE:
                for key in unpack_release(message):
                    del kept[key]
        return kept

    def ask(self, class_id: int, **keys: object) -> None:
        self.describe(class_id, task_spec("app", None, keys))

    def of(self, name: str) -> Node:
        return next(one for one in self.nodes.values() if one.offer.manager_id == name)


@pytest.fixture
def world() -> RankWorld:
    world = RankWorld()
    for name in ("a", "b"):
        world.join(rank_node(name))
    return world


def head_and_member(world: RankWorld, key: int) -> tuple[Node, Node]:
    (head,) = [one for one in world.nodes.values() if key in one.tasks]
    (member,) = [one for one in world.nodes.values() if key in world.parts(one)]
    return head, member


def test_a_task_of_two_nodes_goes_to_one_manager_and_the_other_keeps_a_part(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    assert head is not member
    placement = world.placement(head)
    assert [(place.node, place.ranks, place.slots) for place in placement.places] == [
        (head.offer.node, 2, 2),
        (member.offer.node, 2, 2),
    ]
    assert world.parts(member)[7] == Part(7, head.number, 2, 0, 0.0, 2)
    # Ahead of the task itself, which may talk to its other node at once.
    kinds = [message[0] for peer, message in world.sent if message[0] in (Kind.RESERVE, Kind.PLACEMENT, Kind.TASKS)]
    assert kinds[-3:] == [Kind.RESERVE, Kind.PLACEMENT, Kind.TASKS]


def test_nothing_else_runs_on_the_nodes_of_a_task_of_ranks(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    world.submit(8, 9)
    assert all(not {8, 9} & one.tasks.keys() for one in world.nodes.values())
    head, member = head_and_member(world, 7)
    world.finish(head, [7])
    world.turn()
    assert world.parts(member) == {}
    assert {key for one in world.nodes.values() for key in one.tasks} == {8, 9}


def test_several_small_tasks_of_ranks_share_a_node() -> None:
    world = RankWorld()
    manager = world.join(rank_node("a", workers=4))
    world.ask(1, ranks_per_node=2)
    world.submit(1, 2, 3, class_id=1)
    assert set(manager.tasks) == {1, 2}


def test_all_nodes_of_a_task_are_of_one_block() -> None:
    world = RankWorld()
    world.join(rank_node("a"))
    world.join(rank_node("b", block="1"))
    world.ask(1, nodes=2)
    world.submit(7, class_id=1)
    world.advance(60.0)
    assert world.outcomes == {}
    assert not any(one.tasks for one in world.nodes.values())
    world.join(rank_node("c", block="1"))
    head, member = head_and_member(world, 7)
    assert {head.offer.manager_id, member.offer.manager_id} == {"b", "c"}


def test_nodes_are_kept_for_a_wide_task_however_many_narrow_ones_come(world: RankWorld) -> None:
    world.submit(1, 2, 3, 4)  # all is full
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(100, class_id=1)
    world.now += 1.0
    world.submit(*range(5, 20))
    for key in (1, 2, 3, 4):
        assert not any(100 in one.tasks for one in world.nodes.values())
        (manager,) = [one for one in world.nodes.values() if key in one.tasks]
        world.finish(manager, [key])
        world.turn()
    head, _ = head_and_member(world, 100)
    assert set(head.tasks) == {100}


def test_only_what_is_kept_of_a_node_is_kept() -> None:
    world = RankWorld()
    managers = [world.join(rank_node(name, workers=4)) for name in "ab"]
    world.submit(*range(1, 9))
    world.ask(1, nodes=2, ranks_per_node=1)
    world.submit(100, class_id=1)
    world.now += 1.0
    world.submit(*range(10, 20))
    first = managers[0]
    world.finish(first, sorted(first.tasks)[:2])
    world.turn()
    # One of its two free slots is kept until the other node has one, too.
    assert len(first.tasks) == 3
    world.finish(managers[1], sorted(managers[1].tasks)[:1])
    world.turn()
    head, member = head_and_member(world, 100)
    assert {head, member} == set(managers)


def test_only_the_most_urgent_wide_task_has_nodes_kept(world: RankWorld) -> None:
    world.submit(1, 2, 3, 4)
    world.ask(1, nodes=2)
    world.ask(2, nodes=2, ranks_per_node=2)
    world.submit(100, class_id=2)
    world.submit(101, class_id=1)
    kept = [one for one in world.core.pool.by_number.values() if one.reserved_for is not None]
    assert len(kept) == 2
    assert len({one.reserved_for for one in kept}) == 1
    world.describe(3, task_spec("app", None, {"nodes": 2, "priority": 3}))
    world.submit(102, class_id=3)
    assert len([one for one in world.core.pool.by_number.values() if one.reserved_for is not None]) == 2
    while not any(102 in one.tasks for one in world.nodes.values()):
        manager = next(one for one in world.nodes.values() if one.tasks)
        world.finish(manager, sorted(manager.tasks)[:1])
        world.turn()
    assert not any({100, 101} & one.tasks.keys() for one in world.nodes.values())


def test_a_lost_member_has_the_head_told_and_the_loss_names_the_node(world: RankWorld) -> None:
    world.ask(1, nodes=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    world.core.from_peer(member.peer, "0", pack_exit(reason="killed"), world.now)
    world.turn()
    key, payload = unpack_break(world.down(head, Kind.BREAK)[-1])
    loss = unpack_loss(payload, None)
    assert (key, loss.kind) == (7, LossKind.MANAGER)
    assert f"node {member.offer.node}, where 1 of its 2 ranks were, is lost" in loss.reason
    assert 7 not in world.outcomes  # the head reports it
    world.finish(head, [7], Verdict.LOST)
    world.turn()
    assert world.outcomes == {7: [Verdict.LOST]}
    assert len(world.down(head, Kind.BREAK)) == 1


def test_a_lost_head_frees_the_parts_of_its_members(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    world.core.disconnected(head.peer, world.now)
    world.advance(3.0)
    assert world.outcomes == {7: [Verdict.LOST]}
    assert world.parts(member) == {}
    world.submit(8, 9)
    assert set(member.tasks) == {8, 9}


def test_a_task_that_its_head_returns_frees_its_parts_and_is_placed_again(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    world.give_back(head, [7])
    world.turn()
    assert sum(7 in one.tasks for one in world.nodes.values()) == 1
    assert sum(7 in world.parts(one) for one in world.nodes.values()) == 1
    assert len(world.down(head, Kind.PLACEMENT) + world.down(member, Kind.PLACEMENT)) == 2


def test_a_running_task_is_cancelled_at_its_head_and_its_parts_are_freed(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    _, member = head_and_member(world, 7)
    world.core.from_client(pack_cancel([7], True), world.now)
    world.turn()
    world.turn()
    assert world.outcomes == {7: [Verdict.CANCELLED]}
    assert world.parts(member) == {}


def test_steps_of_processes_pass_between_the_managers_of_one_task_only(world: RankWorld) -> None:
    stranger = world.join(rank_node("c"))
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    for sender, receiver in ((head, member), (member, head)):
        step = pack_remote(RemoteStep.STDOUT, receiver.number, 7, 1, b"text")
        world.core.from_peer(sender.peer, "0", step, world.now)
        world.turn()
        came = unpack_remote(world.down(receiver, Kind.REMOTE)[-1])
        assert (came.manager, bytes(came.body)) == (sender.number, b"text")
    (outside,) = [one for one in world.nodes.values() if one not in (head, member)]
    assert outside in (stranger, world.of("a"), world.of("b"))
    before = len(world.sent)
    for sender, receiver, key in ((outside, member, 7), (head, outside, 7), (head, member, 8)):
        world.core.from_peer(sender.peer, "0", pack_remote(RemoteStep.KILL, receiver.number, key, 1), world.now)
    world.turn()
    assert not any(message[0] == Kind.REMOTE for _, message in world.sent[before:])


def test_older_managers_get_no_tasks_of_ranks_and_are_named() -> None:
    world = RankWorld()
    old = rank_node("a")
    old.offer = replace(old.offer, ranks=None, software="0.1.0")
    world.join(old)
    world.ask(1, ranks=2)
    world.submit(7, class_id=1)
    world.advance(2.0)
    assert world.outcomes == {7: [Verdict.REFUSED]}
    assert "flow-executors of node a (0.1.0) is older than tasks of ranks" in world.reasons[7]
    assert not world.down(old, Kind.PLACEMENT)


def test_newer_managers_beside_older_ones_take_the_tasks_of_ranks() -> None:
    world = RankWorld()
    old = rank_node("a")
    old.offer = replace(old.offer, ranks=None)
    world.join(old)
    world.join(rank_node("b"))
    new = world.join(rank_node("c"))
    world.ask(1, nodes=2)
    world.submit(7, class_id=1)
    assert {one.offer.manager_id for one in head_and_member(world, 7)} == {"b", "c"}
    assert not old.tasks
    assert new.offer.ranks == 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"nodes": 3}, "it asks for 3 nodes, and a block has managers on 2"),
        ({"ranks": 5}, "it asks for 5 ranks, and a block has room for 4"),
        ({"nodes": 2, "ranks_per_node": 3}, "the 2 workers of a node have room for 2"),
        ({"nodes": 2, "gpus_per_rank": 1}, "it asks for 1 GPUs for 1 rank on a node, a node has 0"),
    ],
)
def test_what_no_block_can_ever_run_is_refused_by_name(asked: dict[str, object], reason: str) -> None:
    world = RankWorld(managers_per_block=2)
    for name in ("a", "b"):
        world.join(rank_node(name))
    world.ask(1, **asked)
    world.submit(7, class_id=1)
    world.advance(2.0)
    assert world.outcomes == {7: [Verdict.REFUSED]}
    assert reason in world.reasons[7]
    assert "more nodes in a block (nodes_per_block)" in world.reasons[7]


def test_a_member_that_came_back_is_told_its_parts_again(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    world.core.disconnected(member.peer, world.now)
    world.join(member, number=member.number)
    last = unpack_reserve(world.down(member, Kind.RESERVE)[-1])
    assert last.all
    assert [part.key for part in last.parts] == [7]
    assert not world.down(head, Kind.BREAK)


def test_a_break_of_the_connection_over_which_ranks_talked_breaks_the_task(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, class_id=1)
    head, member = head_and_member(world, 7)
    world.core.from_peer(head.peer, "0", pack_remote(RemoteStep.START, member.number, 7, 1, b"{}"), world.now)
    world.core.disconnected(member.peer, world.now)
    world.join(member, number=member.number)
    key, payload = unpack_break(world.down(head, Kind.BREAK)[-1])
    assert key == 7
    assert "broke while ranks talked over it" in unpack_loss(payload, None).reason


def test_after_a_restart_of_the_interchange_tasks_on_several_nodes_are_lost_and_parts_freed() -> None:
    world = RankWorld(incarnation=1)
    member, head = rank_node("a"), rank_node("b")
    head.offer = replace(head.offer, spread=(7,))
    world.rejoin(member, 1)
    world.rejoin(head, 2, held=(7, 8))
    last = unpack_reserve(world.down(member, Kind.RESERVE)[-1])
    assert last.all
    assert last.parts == ()
    key, payload = unpack_break(world.down(head, Kind.BREAK)[-1])
    assert (key, unpack_loss(payload, None).kind) == (7, LossKind.INTERCHANGE)
    assert len(world.down(head, Kind.BREAK)) == 1


class Chaos:
    """Whatever happens to managers and tasks, in any order: what is booked stays right, and each task ends once."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.world = RankWorld(managers_per_block=4)
        self.keys: list[int] = []
        self.born = 0
        shapes = [
            {"nodes": 2},
            {"nodes": 2, "ranks_per_node": 2},
            {"nodes": 3},
            {"ranks": 3},
            {"ranks": 2},
            {"cores": 2},
        ]
        shapes += [{"nodes": 2, "exclusive": True}, {"nodes": 2, "priority": 2}]
        self.classes = len(shapes)
        for class_id, asked in enumerate(shapes, 1):
            self.world.ask(class_id, **asked)
        for _ in range(6):
            self.join()

    @property
    def here(self) -> list[Node]:
        known = self.world.core.pool.by_peer
        return [one for one in self.world.nodes.values() if one.peer in known]

    def join(self) -> None:
        self.born += 1
        if len(self.here) < 8:
            block = min("01", key=lambda name: sum(one.offer.block == name for one in self.here))
            self.world.join(rank_node(f"m{self.born}", workers=2, block=block, prefetch=self.chance.choice([0, 2])))

    def submit(self) -> None:
        key = len(self.keys) + 1
        self.keys.append(key)
        self.world.submit(key, class_id=self.chance.randint(0, self.classes))

    def finish(self) -> None:
        busy = [one for one in self.here if one.tasks]
        if busy:
            manager = self.chance.choice(busy)
            key = self.chance.choice(sorted(manager.tasks))
            self.world.finish(manager, [key], self.chance.choice([Verdict.OK, Verdict.APP_ERROR]))

    def give_back(self) -> None:
        busy = [one for one in self.here if one.tasks]
        if busy:
            manager = self.chance.choice(busy)
            self.world.give_back(manager, [self.chance.choice(sorted(manager.tasks))])

    def cancel(self) -> None:
        if self.keys:
            self.world.core.from_client(pack_cancel([self.chance.choice(self.keys)], True), self.world.now)

    def lose(self) -> None:
        if len(self.here) > 2:
            self.world.core.from_peer(
                (lost := self.chance.choice(self.here)).peer,
                lost.offer.block,
                pack_exit(reason="killed"),
                self.world.now,
            )

    def come_back(self) -> None:
        if self.here:
            manager = self.chance.choice(self.here)
            self.world.core.disconnected(manager.peer, self.world.now)
            self.world.join(manager, held=tuple(manager.tasks), number=manager.number)

    def settle(self) -> None:
        """Let everything arrive, and heads report what is broken."""
        for _ in range(4):
            self.world.turn()
            for manager in self.here:
                broken = {unpack_break(message)[0] for message in self.world.down(manager, Kind.BREAK)}
                if hit := broken & manager.tasks.keys():
                    self.world.finish(manager, sorted(hit), Verdict.LOST)

    def check(self) -> None:
        wide: set[int] = set()
        for manager in self.here:
            record = self.world.core.pool.by_number[manager.number]
            parts = self.world.parts(manager)
            assert set(parts) == set(record.parts)
            assert record.special_slots == sum(one.slots for one in (*record.special.values(), *record.parts.values()))
            assert record.special_slots <= 2
            assert set(manager.tasks) == record.out | record.special.keys()
            wide.update(parts)
        # No part is kept for a task that is not out.
        assert wide <= {key for manager in self.here for key in manager.tasks}
        assert all(len(outcomes) == 1 for outcomes in self.world.outcomes.values())


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_parts_are_booked_once_and_freed_whatever_happens(seed: int) -> None:
    chaos = Chaos(random.Random(seed))
    steps = (
        [chaos.submit] * 6
        + [chaos.finish] * 4
        + [chaos.join, chaos.give_back, chaos.cancel, chaos.lose, chaos.come_back]
    )
    for _ in range(60):
        chaos.chance.choice(steps)()
        chaos.settle()
        chaos.check()
        chaos.world.now += 0.1
    for _ in range(300):
        if not any(one.tasks for one in chaos.here) and len(chaos.world.outcomes) == len(chaos.keys):
            break
        chaos.join()
        chaos.finish()
        chaos.settle()
        chaos.check()
        chaos.world.advance(0.3)
    assert set(chaos.world.outcomes) == set(chaos.keys)
    assert not any(one.parts or one.gangs for one in chaos.world.core.pool.by_number.values())


# -- what the scaling is told


def lacking(world: RankWorld) -> tuple[int, ...] | None:
    world.core.from_client(pack_command(Command(7, "blocks")), world.now)
    world.turn()
    return world.replies[-1].lacking


def test_the_nodes_that_tasks_lack_are_told_once_each_and_only_where_no_block_has_them(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=2)
    world.ask(2, nodes=3, ranks_per_node=1)
    world.ask(3, ranks=6)
    world.submit(7, 8, class_id=1)
    assert lacking(world) is None  # the second one waits, and has room when the first is over
    world.submit(9, 10, class_id=2)
    world.submit(11, class_id=3)
    assert lacking(world) == (3,)
    world.core.from_peer(world.of("b").peer, "0", pack_exit(reason="killed"), world.now)
    assert lacking(world) == (2, 3)


def test_a_manager_that_takes_nothing_new_counts_for_no_task_that_waits(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=1)
    world.core.from_client(pack_command(Command(6, "hold", managers=("b",))), world.now)
    world.submit(7, class_id=1)
    assert lacking(world) == (2,)
    world.core.from_client(pack_command(Command(8, "release", managers=("b",))), world.now)
    world.turn()
    assert lacking(world) is None


def test_what_can_never_run_lacks_no_nodes(world: RankWorld) -> None:
    world.ask(1, nodes=2, ranks_per_node=9)
    world.submit(7, class_id=1)
    assert lacking(world) is None


def wide(world: RankWorld) -> tuple[int, int, int] | None:
    world.core.from_client(pack_command(Command(7, "blocks")), world.now)
    world.turn()
    return world.replies[-1].wide


def test_tasks_of_several_slots_are_told_by_their_slots_where_they_wait_and_where_they_are_out(
    world: RankWorld,
) -> None:
    world.submit(1)
    assert wide(world) is None  # a task of one slot is none of them
    world.finish(next(node for node in world.nodes.values() if 1 in node.tasks), [1])
    world.turn()
    world.ask(1, nodes=2, ranks_per_node=2)
    world.submit(7, 8, class_id=1)
    assert wide(world) == (1, 4, 3)
    world.finish(head_and_member(world, 7)[0], [7])
    world.turn()
    assert wide(world) == (0, 0, 3)
