"""How many managers a block's key admits, and how many may be about to register."""

from __future__ import annotations

import platform
from dataclasses import replace

from hypothesis import given, strategies as st
from interchange_world import Node, World, node

from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.admission import Greetings
from flow_executors.wire.messages import ExitCode, PeerInfo, pack_hello


def test_a_block_has_as_many_managers_as_it_starts() -> None:
    world = World(managers_per_block=2)
    for name in ("a", "b"):
        world.join(node(name, block="0"))
    world.join(node("thief", block="0"))
    world.join(node("c", block="1"))
    ((peer, code, reason),) = world.exits
    assert (peer, code) == (b"thief", ExitCode.REFUSED)
    assert "thief on node has the key of a block whose 2 places are taken by a on node, b on node" in reason
    (told,) = world.departures
    assert (told.block, told.lost) == ("0", True)
    assert "thief on node" in told.reason
    assert sorted(one.offer.manager_id for one in world.core.pool.by_number.values()) == ["a", "b", "c"]


def test_the_place_of_a_manager_that_is_lost_is_free() -> None:
    world = World(managers_per_block=1)
    first = world.join(node("a"))
    world.core.disconnected(first.peer, world.now)
    world.advance(2)
    world.join(node("b"))
    assert world.exits == []
    assert [one.offer.manager_id for one in world.core.pool.by_number.values()] == ["b"]


def test_a_manager_whose_welcome_was_lost_has_its_place_again() -> None:
    world = World(managers_per_block=1)
    first = node("a")
    first.offer = replace(first.offer, secret="its own")
    world.join(first)
    number = first.number
    world.submit(1)
    again = Node("a", b"another connection", 2, 2)
    again.offer = replace(again.offer, secret="its own")
    world.join(again)
    assert world.exits == []
    assert again.number == number
    assert list(world.core.pool.by_peer) == [b"another connection"]
    assert world.outcomes == {1: [Verdict.RETURNED]}


def test_who_was_here_before_an_interchange_was_replaced_has_its_place() -> None:
    world = World(managers_per_block=1, incarnation=1)
    thief = world.join(node("thief"))
    world.rejoin(node("a"), number=7, held=(1,))
    ((peer, code, reason),) = world.exits
    assert (peer, code) == (thief.peer, ExitCode.DECLARED_LOST)
    assert "a on node" in reason
    assert list(world.core.pool.by_number) == [7]


def test_few_lines_are_told_of_one_who_comes_again_and_again() -> None:
    world = World(managers_per_block=1)
    world.join(node("a"))
    for number in range(100):
        world.join(Node("thief", b"thief %d" % number, 2, 2))
    world.now += 11
    world.join(Node("thief", b"the last", 2, 2))
    assert len(world.exits) == 101
    assert len(world.departures) == 2
    assert "99 more" in world.departures[1].reason
    assert sum("turned away" in line for line in world.core.story) == 2


def test_who_only_greets_is_forgotten_and_the_others_register() -> None:
    world = World(managers_per_block=1)
    hello = pack_hello(PeerInfo("manager", "run", platform.python_version()))
    for number in range(1000):
        world.core.from_peer(b"%d" % number, "0", hello, world.now)
    assert len(world.core._greeted) < 50
    world.join(node("a"))
    assert [one.offer.manager_id for one in world.core.pool.by_number.values()] == ["a"]


PEERS = st.sampled_from([b"%d" % number for number in range(30)])


@given(st.lists(st.tuples(st.sampled_from("gxr"), PEERS, st.sampled_from("ab"))))
def test_pending_peers_are_bounded_whatever_comes(events: list[tuple[str, bytes, str]]) -> None:
    greetings, managers = Greetings(1), set()
    for what, peer, block in events:
        if what == "g":
            managers.discard(peer)
            forgotten = greetings.add(peer, block)
            assert forgotten not in managers
            assert peer in greetings
        elif what == "r" and peer in greetings:
            greetings.registered(peer)
            managers.add(peer)
        elif what == "x":
            greetings.forget(peer)
            managers.discard(peer)
            assert peer not in greetings
        assert all(one in greetings for one in managers)
        assert len(greetings) - len(managers) <= 2 * 18
