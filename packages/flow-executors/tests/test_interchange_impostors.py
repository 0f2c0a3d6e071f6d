"""Managers that say that they are others, and managers of blocks whose jobs are over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from interchange_world import Node, World, node

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.sampler import Sample
from flow_executors.interchange.sessions import Sessions
from flow_executors.wire.commands import Command, KeyChange, pack_command
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    ExitCode,
    Heartbeat,
    ManagerLeft,
    PeerInfo,
    pack_cancel,
    pack_heartbeat,
    pack_hello,
    pack_left,
    pack_notice,
    pack_register,
    pack_samples,
    pack_worker,
    unpack_heartbeat,
)


def impostor(of: Node, block: str) -> Node:
    """A manager of a block that calls itself as another one, from another connection."""
    made = node(of.offer.manager_id, block=block)
    made.peer = b"impostor"
    return made


def test_a_manager_does_not_take_the_place_of_one_of_another_block() -> None:
    world = World()
    first = world.join(node("a", block="0"))
    world.submit(1)
    false = world.join(impostor(first, "1"), number=first.number)
    assert false.number != first.number
    assert world.core.pool.by_peer[first.peer].has(1)
    assert world.outcomes == {}
    world.finish(first, [1])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK]}


def test_the_loss_of_an_impostor_shuts_nobody_else_out() -> None:
    world = World()
    first = world.join(node("a", block="0"))
    false = world.join(impostor(first, "1"))
    world.core.disconnected(false.peer, world.now)
    world.core.disconnected(first.peer, world.now + 0.9)
    world.now += 1.5
    world.core.tick(world.now)
    first.peer = b"a again"
    world.join(first, number=first.number)
    assert world.exits == []
    assert list(world.core.pool.by_peer) == [b"a again"]


def test_who_sends_results_of_tasks_that_others_have_is_thrown_out() -> None:
    world = World()
    first, second = world.join(node("a", block="0")), world.join(node("b", block="1"))
    world.submit(1, 2, 3, 4)
    theirs, own = min(first.tasks), sorted(second.tasks)
    world.finish(second, [*own, theirs])
    world.turn()
    assert world.outcomes == {key: [Verdict.LOST] for key in own}
    assert world.exits == [(second.peer, ExitCode.DECLARED_LOST, "it sent results of tasks that other managers have")]
    world.finish(first, [theirs])
    world.turn()
    assert world.outcomes[theirs] == [Verdict.OK]


def test_results_that_come_twice_are_no_lie() -> None:
    world = World()
    first = world.join(node("a"))
    world.submit(1)
    world.finish(first, [1])
    world.finish(first, [1])
    world.turn()
    assert world.exits == []


def test_a_manager_cannot_hold_tasks_that_it_was_never_given() -> None:
    world = World()
    first = world.join(node("a", block="0"))
    world.submit(1)
    false = world.join(node("b", block="1"), held=(1,))
    assert world.exits[0][:2] == (false.peer, ExitCode.DECLARED_LOST)
    world.core.disconnected(false.peer, world.now)
    world.now += 2
    world.core.tick(world.now)
    world.turn()
    assert world.outcomes == {}
    assert world.core.pool.by_peer[first.peer].has(1)


def test_one_connection_is_one_manager() -> None:
    world = World()
    first = world.join(node("a"))
    second = node("b")
    second.peer = first.peer
    world.join(second)
    assert world.exits[0][1] is ExitCode.REFUSED
    assert len(world.core.pool.by_number) == 1


def reports(manager: int) -> list[bytes]:
    sample = Sample(1, TryKey(1), 1, 1, 0.0, 0.0, 0.0, 0, 0.0, 0, 0)
    return [
        pack_samples(manager, [sample]),
        pack_worker(manager, 0, 4711),
        pack_notice(manager, "the disk is full"),
    ]


def test_events_workers_and_notices_are_told_in_ones_own_name_alone() -> None:
    world = World()
    first, second = world.join(node("a", block="0")), world.join(node("b", block="1"))
    for message in reports(first.number):
        world.core.from_peer(second.peer, "", message, world.now)
    assert world.core.to_client == []
    for message in reports(first.number):
        world.core.from_peer(first.peer, "", message, world.now)
    assert len(world.core.to_client) == 3


@pytest.mark.parametrize("kind", [Kind.LEFT, Kind.DRAIN, Kind.CANCEL, Kind.TASKS, Kind.COMMAND, Kind.KEYS, Kind.BLOB])
def test_what_only_the_script_says_is_not_taken_from_a_manager(kind: Kind) -> None:
    world = World()
    first, second = world.join(node("a")), world.join(node("b"))
    world.submit(1)
    before = world.core.ignored
    for message in (
        bytes((kind,)) + bytes(60),
        pack_left(ManagerLeft(first.number, "a", "0", "node", "gone", True)),
        pack_cancel([1], True),
        pack_command(Command(1, "drain", blocks=("0",))),
    ):
        world.core.from_peer(second.peer, "", message, world.now)
    world.turn()
    assert world.core.ignored == before + 4
    assert world.outcomes == {}
    assert world.departures == []
    assert not any(one.draining for one in world.core.pool.by_number.values())


def test_a_manager_whose_block_is_over_gets_nothing_more_and_is_sent_away_when_it_has_nothing() -> None:
    world = World()
    kept = world.join(node("a", block="0"))
    world.submit(1)
    world.core.admitted(KeyChange(revoke=("0",)), world.now)
    world.submit(2)
    assert set(kept.tasks) == {1}
    beat = pack_heartbeat(Heartbeat(kept.number, 0, 0))
    for _ in range(12):  # it has a task, and it is heard
        world.core.from_peer(kept.peer, "", beat, world.now)
        world.advance(1.0)
    assert world.exits == []
    world.finish(kept, [1])
    for _ in range(6):
        world.core.from_peer(kept.peer, "", beat, world.now)
        world.advance(1.0)
    assert [exit[:2] for exit in world.exits] == [(kept.peer, ExitCode.DONE)]
    assert not world.core.pool.by_number
    assert world.outcomes == {1: [Verdict.OK]}
    world.core.from_peer(kept.peer, "", pack_register(0, replace(kept.offer), ()), world.now)
    world.turn()
    assert not world.core.pool.by_number


@pytest.mark.parametrize(("contested", "thresholds"), [(True, 2), (False, 32)])
def test_who_stays_when_its_job_is_over_does_not_keep_its_tasks_for_ever(contested: bool, thresholds: int) -> None:
    """What came first with a stolen key has a task, and sends signs of life: the job's end ends that."""
    world = World(managers_per_block=1)
    thief = world.join(node("thief", block="0"))
    if contested:
        world.join(node("of the job", block="0"))
        assert [exit[1] for exit in world.exits] == [ExitCode.REFUSED]
        world.exits.clear()
    world.submit(1)
    world.core.admitted(KeyChange(revoke=("0",)), world.now)
    beat = pack_heartbeat(Heartbeat(thief.number, 0, 0))
    step = world.core.settings.heartbeat_threshold_s / 4
    steps = 0
    while not world.exits:
        world.core.from_peer(thief.peer, "", beat, world.now)
        world.advance(step)
        steps += 1
        assert steps < 4 * thresholds
    assert steps >= 4 * (thresholds - 2)
    assert [exit[:2] for exit in world.exits] == [(thief.peer, ExitCode.DECLARED_LOST)]
    assert world.outcomes == {1: [Verdict.LOST]}


def test_who_has_said_hello_before_its_block_was_over_does_not_register_after() -> None:
    world = World()
    late = node("a", block="0")
    world.nodes[late.peer] = late
    hello = pack_hello(PeerInfo("manager", "run", late.offer.python))
    world.core.from_peer(late.peer, "0", hello, world.now)
    world.core.admitted(KeyChange(revoke=("0",)), world.now)
    world.core.from_peer(late.peer, "0", pack_register(0, late.offer, ()), world.now)
    world.turn()
    assert world.exits[0][1:] == (ExitCode.REFUSED, "block 0 was given up")
    assert not world.core.pool.by_number


def test_who_has_the_key_of_a_block_does_not_become_another_manager_of_it() -> None:
    world = World()
    first = world.join(node("a"))
    world.submit(1)
    for shown in ("", "0" * 64, "\ud800", Sessions(b"guessed").of(first.number, "0")):
        false = impostor(first, "0")
        false.peer += shown.encode(errors="surrogatepass")[:4]
        false.offer = replace(false.offer, session=shown)
        world.join(false, number=first.number)
        assert false.number != first.number
    assert world.core.pool.by_peer[first.peer].has(1)
    assert world.outcomes == {}
    world.finish(first, [1])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK]}


def test_the_session_of_one_manager_is_not_that_of_another() -> None:
    world = World()
    first = world.join(node("a"))
    world.submit(1)
    false = world.join(impostor(first, "0"))
    world.core.disconnected(false.peer, world.now)
    false.peer = b"again"
    world.join(false, number=first.number)  # with its own session
    assert world.core.pool.by_peer[first.peer].has(1)
    assert false.number not in (0, first.number)


def test_two_managers_of_one_name_are_told_apart_by_name_too() -> None:
    world = World()
    first = world.join(node("a"))
    false = world.join(impostor(first, "0"))
    names = {number: manager.offer.manager_id for number, manager in world.core.pool.by_number.items()}
    assert names == {first.number: "a", false.number: f"a#{false.number}"}
    for _ in range(2):  # also when it comes again
        world.core.disconnected(false.peer, world.now)
        false.peer += b"+"
        number = false.number
        world.join(false, number=number)
        assert false.number == number
        assert world.core.pool.by_number[number].offer.manager_id == f"a#{number}"


def test_the_session_of_a_manager_is_told_to_nobody_else() -> None:
    world = World()
    first = node("a")
    first.offer = replace(first.offer, secret="its own")
    world.join(first)
    world.core.disconnected(first.peer, world.now)
    first.peer = b"again"
    world.join(first, number=first.number)
    world.join(node("b"))
    told = [message for peer, message in world.sent if peer != b"again" and peer != b"a"]
    session = first.offer.session
    assert session
    assert all(session.encode() not in message for message in [*told, *world.told_up])
    assert session not in repr(first.offer)
    assert "its own" not in repr(first.offer)
    assert not any(b"its own" in message for message in told)


def test_a_result_of_a_task_that_nobody_has_yet_is_not_taken() -> None:
    world = World()
    world.submit(1)
    first = world.join(node("a", workers=1, prefetch=0))
    world.submit(2, 3)
    world.finish(first, [1, 2])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK]}
    assert world.core.late == 1
    assert set(first.tasks) <= {2, 3}
    world.finish(first, [2])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK], 2: [Verdict.OK]}


def test_a_start_is_told_only_of_tasks_that_its_sender_has() -> None:
    world = World()
    first, second = world.join(node("a", workers=1, prefetch=0)), world.join(node("b", workers=1, prefetch=0))
    world.submit(1, 2)
    (own,) = second.tasks
    beat = Heartbeat(second.number, 0, 5, (1, 2), (10, 20), (0, 1))
    world.core.from_peer(second.peer, "", pack_heartbeat(beat), world.now)
    (said,) = [unpack_heartbeat(message) for message in world.core.to_client if message[0] == Kind.STARTED]
    assert said == replace(beat, keys=(own,), starts=(own * 10,), workers=(own - 1,))
    (theirs,) = first.tasks
    beat = Heartbeat(second.number, 0, 5, (theirs,), (10,), (0,))
    world.turn()
    world.core.from_peer(second.peer, "", pack_heartbeat(beat), world.now)
    assert world.core.to_client == []


@pytest.mark.parametrize("shown", [False, True])
def test_after_a_restart_only_who_was_there_before_can_hold_tasks(shown: bool) -> None:
    world = World(incarnation=1)
    if shown:
        assert world.rejoin(node("a"), 1, held=(7,)).number == 1
        return
    world.join(node("a"), held=(7,), number=1)
    assert world.exits[0][1] is ExitCode.DECLARED_LOST


def test_after_a_restart_a_task_that_two_managers_claim_is_neithers() -> None:
    world = World(incarnation=1)
    first = world.rejoin(node("a", workers=4), 1, held=(7, 8))
    second = world.rejoin(node("b", workers=4), 2, held=(7, 9))
    assert world.outcomes == {7: [Verdict.LOST]}
    out = {number: manager.out for number, manager in world.core.pool.by_number.items()}
    assert out == {1: {8}, 2: {9}}
    for one in (first, second):
        world.finish(one, [7, 8] if one is first else [7, 9])
    world.turn()
    assert world.outcomes == {7: [Verdict.LOST], 8: [Verdict.OK], 9: [Verdict.OK]}


def test_after_a_restart_a_name_that_somebody_took_first_costs_its_owner_nothing() -> None:
    world = World(incarnation=1)
    world.join(impostor(node("a"), "0"))
    kept = world.rejoin(node("a"), 1, held=(7,))
    assert kept.number == 1
    assert world.core.pool.by_number[1].out == {7}
