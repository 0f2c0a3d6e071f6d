"""Managers, and who has a key, that say more than there is to say."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from interchange_world import Node, World, node

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.sampler import Sample
from flow_executors.interchange.talk import BURST, EACH_S, TalkBudget, cost
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    Credit,
    ExitCode,
    Heartbeat,
    PeerInfo,
    pack_credit,
    pack_heartbeat,
    pack_hello,
    pack_need,
    pack_notice,
    pack_register,
    pack_samples,
    pack_worker,
)
from flow_executors.wire.results import pack_results

SAMPLE = Sample(1, TryKey(1), 1, 1, 0.0, 0.0, 0.0, 0, 0.0, 0, 0)
FOREIGN = tuple(range(1000, 3000))


def late(number: int) -> bytes:
    zeros = [0] * len(FOREIGN)
    return pack_results(number, 1, 0, FOREIGN, zeros, zeros, zeros, bytes(len(FOREIGN)), [b""] * len(FOREIGN))


FLOODS = {
    "needs": lambda number: pack_need([bytes([one % 256, one >> 8]) * 8 for one in range(1000)]),
    "samples": lambda number: pack_samples(number, [SAMPLE] * 100),
    "notices": lambda number: pack_notice(number, "x" * 400),
    "workers": lambda number: pack_worker(number, 0, 1),
    "beats": lambda number: pack_heartbeat(Heartbeat(number, 0, 0, FOREIGN, FOREIGN, (0,) * len(FOREIGN))),
    "credits": lambda number: pack_credit(Credit(1, 1, 1, 0)),
    "late results": late,
    "no results": lambda number: pack_results(number, 1, 0, [], [], [], [], b"", []),
    "noise": lambda number: b"N" + bytes(10),
    "what only the script says": lambda number: pack_samples(number, [])[:1].replace(b"E", b"M") + b"{}",
}


@pytest.mark.parametrize("what", FLOODS)
def test_who_talks_without_end_is_sent_away_and_its_block_has_no_place_for_another(what: str) -> None:
    world = World()
    true, rogue = world.join(node("a", block="0")), world.join(node("rogue", block="1"))
    world.submit(1)
    message = FLOODS[what](rogue.number)
    for _ in range(100_000):
        world.core.from_peer(rogue.peer, "", message, world.now)
        world.core.to_client.clear()
        if rogue.peer not in world.core.pool.by_peer:
            break
    world.turn()
    assert world.exits[0][:2] == (rogue.peer, ExitCode.DECLARED_LOST)
    assert world.core.hang_ups == [rogue.peer]
    world.join(Node("another", b"another", 1, 0, block="1"))
    assert world.exits[-1][1] is ExitCode.REFUSED
    world.finish(true, [1])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK]}
    assert list(world.core.pool.by_peer) == [true.peer]


@pytest.mark.parametrize("greets", [True, False])
def test_who_greets_or_calls_without_end_is_hung_up_on(greets: bool) -> None:
    world = World()
    world.join(node("a", block="0"))
    message = pack_hello(PeerInfo("manager", "run", "3.11")) if greets else pack_need([b"d" * 16])
    for _ in range(20_000):
        world.core.from_peer(b"x", "1" if greets else "", message, world.now)
        if world.core.hang_ups:
            break
    assert world.core.hang_ups == [b"x"]
    world.join(node("b", block="0"))
    assert len(world.core.pool.by_peer) == 2


def test_a_busy_manager_of_many_workers_may_say_all_that_it_has_to_say() -> None:
    """Ten times a second 128 workers are sampled, each second 100 tasks are reported as long, all workers die once."""
    world = World()
    busy = world.join(node("a", workers=128))
    keys = tuple(range(100))
    for tenth in range(600):
        world.core.from_peer(busy.peer, "", pack_samples(busy.number, [SAMPLE] * 128), world.now)
        if tenth % 10 == 0:
            beat = pack_heartbeat(Heartbeat(busy.number, 0, 0, keys, keys, (0,) * 100))
            world.core.from_peer(busy.peer, "", beat, world.now)
        world.now += 0.1
        world.turn()
    for rank in range(128):
        world.core.from_peer(busy.peer, "", pack_worker(busy.number, rank, 5), world.now)
    assert world.exits == []


def test_many_managers_that_come_again_at_once_are_heard() -> None:
    world = World()
    for number in range(4000):
        one = Node(str(number), b"%d" % number, 64, 64)
        hello = pack_hello(PeerInfo("manager", "run", one.offer.python))
        world.core.from_peer(one.peer, "0", hello, world.now)
        world.core.from_peer(one.peer, "0", pack_register(0, one.offer, ()), world.now)
    assert len(world.core.pool.by_peer) == 4000
    assert world.core.hang_ups == []


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, BURST))))
def test_no_more_is_spent_than_there_was(steps: list[tuple[float, float]]) -> None:
    budget, now, spent = TalkBudget(), 0.0, 0.0
    for pause, units in steps:
        now += pause
        if not budget.spend(units, now):
            return
        spent += units
        assert spent <= BURST + now * EACH_S + 1e-3


@given(st.sampled_from(sorted(Kind)), st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_a_longer_message_costs_no_less(kind: int, size: int, more: int) -> None:
    assert 0 < cost(kind, size) <= cost(kind, size + more)
