"""The interchange's mind about managers: who is there, who is lost, who gets what, and what they are told."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest
from interchange_world import DIGEST, World, node

from flow_core.interfaces.outcome import Verdict
from flow_executors.wire.commands import Command, pack_command
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    Credit,
    ExitCode,
    Heartbeat,
    PeerInfo,
    pack_ack,
    pack_again,
    pack_blob,
    pack_cancel,
    pack_heartbeat,
    pack_hello,
    pack_register,
)
from flow_executors.wire.results import unpack_results
from flow_executors.wire.tasks import mark_delivered, pack_record, pack_result, pack_tasks


def test_tasks_wait_until_a_manager_comes() -> None:
    world = World()
    world.submit(1, 2, 3)
    manager = world.join(node())
    assert set(manager.tasks) == {1, 2, 3}


def test_idle_slots_come_before_prefetching() -> None:
    world = World()
    first, second = world.join(node("a")), world.join(node("b"))
    world.submit(1, 2, 3, 4)
    assert (len(first.tasks), len(second.tasks)) == (2, 2)


def test_nodes_are_filled_one_after_the_other_where_asked_for() -> None:
    world = World(packed=True)
    first, second = world.join(node("a")), world.join(node("b"))
    world.submit(1)
    world.submit(2)
    assert (len(first.tasks), len(second.tasks)) == (2, 0)
    world.submit(3)
    assert len(second.tasks) == 1


def test_a_task_that_comes_alone_to_an_idle_manager_goes_on_as_it_is() -> None:
    world = World()
    first, second = world.join(node("a")), world.join(node("b"))
    for key in (1, 2):  # a function is new to each of them once
        world.submit(key)
    record = pack_record(DIGEST, 3, 0, b"payload")
    message = pack_tasks(0, [DIGEST], [3], [len(record)], record)
    world.core.from_client(message, world.now)
    assert world.core.to_managers == [(first.peer, message)]
    assert world.core.waiting.count == 0
    world.turn()
    world.submit(4, 5)
    assert (set(first.tasks) & {4, 5}, set(second.tasks) & {4, 5}) == ({5}, {4})


def test_a_task_that_comes_alone_waits_behind_those_that_wait() -> None:
    world = World()
    manager = world.join(node(workers=1, prefetch=0))
    world.submit(1)
    world.submit(2)
    world.finish(manager, [1])  # in the same turn as the next one comes
    record = pack_record(DIGEST, 3, 0, b"")
    world.core.from_client(pack_tasks(0, [DIGEST], [3], [len(record)], record), world.now)
    world.turn()
    assert set(manager.tasks) == {2}


def test_a_manager_never_gets_more_than_its_room() -> None:
    world = World()
    manager = world.join(node())
    world.submit(*range(10))
    assert len(manager.tasks) == 4
    world.finish(manager, [0])
    world.turn()
    assert len(manager.tasks) == 4


def test_credit_follows_slots_and_prefetch() -> None:
    world = World()
    world.join(node(workers=3, prefetch=5))
    assert world.credits[-1] == Credit(1, 3, 5, 2 * 8 + 1024)


def test_a_broken_connection_loses_tasks_only_after_a_second() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1)
    world.core.disconnected(manager.peer, world.now)
    world.now += 0.5
    world.core.tick(world.now)
    world.turn()
    assert world.outcomes == {}
    world.now += 0.6
    world.core.tick(world.now)
    world.turn()
    assert world.outcomes == {1: [Verdict.LOST]}
    assert world.departures[-1].lost


@pytest.mark.parametrize(("away_s", "waits"), [(2.0, False), (30.0, True), (61.0, False)])
def test_connections_that_broke_while_the_machine_slept_have_time_if_managers_wait_for_as_long(
    away_s: float, waits: bool
) -> None:
    world = World(sleep_threshold_s=60.0)
    manager = world.join(node())
    world.submit(1)
    world.now += away_s
    world.core.slept(world.now, away_s)
    world.core.disconnected(manager.peer, world.now)
    deadline = world.core.next_deadline(world.now)
    assert deadline == world.now + (45.0 if waits else 1.0)  # as long as it was away, and 15 s
    world.now += 44.0 if waits else 4.0
    world.core.tick(world.now)
    manager.peer = b"another"
    if waits:
        world.join(manager, held=(1,), number=manager.number)
        world.finish(manager, [1])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK if waits else Verdict.LOST]}


def test_of_tasks_lost_at_the_end_of_their_block_those_that_ran_for_most_of_it_are_lost_to_walltime() -> None:
    world = World()
    short = node()
    short.offer = replace(short.offer, ends_at_ns=int((world.now + 60) * 1e9))
    world.join(short)
    world.submit(1, 2, 3)
    starts = (int((world.now + 1) * 1e9), int((world.now + 40) * 1e9))
    world.core.from_peer(short.peer, "", pack_heartbeat(Heartbeat(1, 0, 0, (1, 2), starts, (0, 1))), world.now)
    world.now += 57
    world.core.disconnected(short.peer, world.now)
    world.now += 1.5
    world.core.tick(world.now)
    batches = [unpack_results(message) for message in world.core.to_client if message[0] == Kind.RESULTS]
    lost = {batch.keys: bytes(batch.body) for batch in batches}
    assert b"MANAGER" in lost[2, 3]
    assert b"WALLTIME" in lost[1,]
    world.turn()


def test_a_manager_that_comes_back_keeps_its_tasks_and_those_that_never_arrived_are_returned() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1, 2)
    world.core.disconnected(manager.peer, world.now)
    manager.peer = b"another"
    world.join(manager, held=(1,), number=manager.number)
    assert world.outcomes == {2: [Verdict.RETURNED]}
    world.finish(manager, [1])
    world.turn()
    assert world.outcomes[1] == [Verdict.OK]


def test_a_manager_that_registers_twice_is_one_manager() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1)
    world.join(manager, held=(1,))
    assert list(world.core.pool.by_number) == [manager.number]
    world.finish(manager, [1])
    world.turn()
    assert world.outcomes == {1: [Verdict.OK]}


def test_a_silent_manager_is_lost_and_told_so_when_it_comes_back() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1)
    world.now += 6
    world.core.tick(world.now)
    world.turn()
    assert world.outcomes == {1: [Verdict.LOST]}
    world.finish(manager, [1])
    world.turn()
    assert world.outcomes == {1: [Verdict.LOST]}
    world.join(manager, held=(1,), number=manager.number)
    assert world.exits[-1][1] is ExitCode.DECLARED_LOST


def test_after_a_restart_held_keys_are_out_at_their_manager() -> None:
    world = World(incarnation=1)
    manager = world.rejoin(node(), 1, held=(7, 8))
    assert world.core.pool.by_number[manager.number].out == {7, 8}
    world.submit(1, 2, 3)
    assert len(manager.tasks) == 2


def test_another_python_is_turned_away_with_a_reason() -> None:
    world = World()
    hello = pack_hello(PeerInfo("manager", "run", "2.7.1"))
    world.core.from_peer(b"x", "0", hello, world.now)
    world.turn()
    assert world.exits[0][1] is ExitCode.REFUSED
    assert "2.7.1" in world.exits[0][2]
    assert "2.7.1" in world.departures[0].reason


def test_a_manager_cannot_claim_another_block_than_that_of_its_key() -> None:
    world = World()
    manager = node(block="1")
    world.nodes[manager.peer] = manager
    hello = pack_hello(PeerInfo("manager", "run", platform.python_version()))
    world.core.from_peer(manager.peer, "0", hello, world.now)
    world.core.from_peer(manager.peer, "0", pack_register(0, manager.offer, ()), world.now)
    world.turn()
    assert world.exits[0][1] is ExitCode.REFUSED
    assert not world.core.pool.by_peer


def test_a_manager_cannot_report_in_the_name_of_another() -> None:
    world = World()
    first, second = world.join(node("a")), world.join(node("b"))
    world.submit(1, 2)
    second.number = first.number
    world.finish(second, [1, 2])
    world.turn()
    assert world.outcomes == {}


def test_strangers_are_asked_to_introduce_themselves() -> None:
    world = World()
    world.core.from_peer(b"stranger", "", pack_heartbeat(Heartbeat(1, 2, 3)), world.now)
    assert world.core.to_managers == [(b"stranger", pack_again())]


def test_cancel_reaches_tasks_that_wait_and_tasks_that_are_out() -> None:
    world = World()
    manager = world.join(node(workers=1, prefetch=0))
    world.submit(1, 2)
    world.core.from_client(pack_cancel([1, 2, 99], False), world.now)
    world.turn()
    world.turn()
    assert world.outcomes == {1: [Verdict.CANCELLED], 2: [Verdict.CANCELLED]}
    assert manager.tasks == {}


def test_unstarted_tasks_are_recalled_for_an_idle_manager() -> None:
    world = World()
    busy = world.join(node("a", workers=1, prefetch=7))
    world.submit(*range(8))
    idle = world.join(node("b", workers=1, prefetch=0))
    assert world.recalls == [(b"a", 4)]
    world.give_back(busy, [5, 6, 7])
    world.turn()
    assert len(idle.tasks) == 1
    assert len(busy.tasks) == 7


def test_a_drain_takes_only_blocks_idle_for_long_enough() -> None:
    world = World()
    world.join(node("a", block="0"))
    world.join(node("b", block="1"))
    world.now += 10
    world.submit(1)
    command = Command(1, "drain", ("0", "1"), (), 5.0)
    world.core.from_client(pack_command(command), world.now)
    world.turn()
    drained = {activity.block for activity in world.replies[0].blocks}
    busy = {n.offer.block for n in world.nodes.values() if n.tasks}
    assert len(drained) == 1
    assert not drained & busy


def test_a_held_manager_gets_nothing_until_it_is_released() -> None:
    world = World()
    manager = world.join(node())
    world.core.from_client(pack_command(Command(1, "hold", (), ("m",))), world.now)
    world.submit(1)
    assert manager.tasks == {}
    world.core.from_client(pack_command(Command(2, "release", (), ("m",))), world.now)
    world.turn()
    assert set(manager.tasks) == {1}


def test_each_manager_is_told_of_with_its_tasks_and_what_it_takes() -> None:
    world = World()
    world.join(node("busy", block="0", workers=2))
    world.join(node("idle", block="1"))
    world.now += 10
    world.core.from_client(pack_command(Command(1, "hold", (), ("idle",))), world.now)
    world.submit(1, 2)
    world.core.from_client(pack_command(Command(2, "drain", (), ("busy",))), world.now)
    world.core.from_client(pack_command(Command(3, "managers")), world.now)
    world.turn()
    states = {one.manager: one for one in world.replies[-1].managers or ()}
    busy, idle = states["busy"], states["idle"]
    assert (busy.tasks, busy.idle_s, busy.draining, busy.held, busy.active) == (2, 0.0, True, False, False)
    assert (idle.tasks, idle.draining, idle.held, idle.active) == (0, False, True, False)
    assert idle.idle_s >= 10
    assert (busy.block, busy.node, busy.workers) == ("0", world.nodes[b"busy"].offer.node, 2)


def test_a_function_goes_once_to_each_manager_before_its_first_task() -> None:
    world = World()
    world.core.from_client(pack_blob(DIGEST, b"body")[0], world.now)
    world.join(node())
    world.submit(1)
    world.submit(2)
    kinds = [message[0] for _, message in world.sent if message[0] in (Kind.BLOB, Kind.TASKS)]
    assert kinds == [Kind.BLOB, Kind.TASKS, Kind.TASKS]


def test_a_missing_function_is_asked_of_the_client_and_passed_on_when_it_comes() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1)
    assert world.needed == [DIGEST]
    world.core.from_client(pack_blob(DIGEST, b"body")[0], world.now)
    world.turn()
    assert (manager.peer, pack_blob(DIGEST, b"body")[0]) in world.sent


def test_results_are_acknowledged_after_they_were_delivered() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1)
    world.finish(manager, [1])
    world.turn()
    assert world.core.owes_acks
    world.core.delivered(True)
    assert world.core.to_managers == [(manager.peer, pack_ack(1))]
    assert not world.core.owes_acks


@pytest.mark.parametrize("message", [b"", b"\x00", b"T", b"R" * 40, b"G" * 40, b"Z" * 100, bytes(range(60, 90))])
def test_nonsense_is_counted_and_dropped(message: bytes) -> None:
    world = World()
    manager = world.join(node())
    world.core.from_peer(manager.peer, "0", message, world.now)
    world.core.from_peer(b"stranger", "0", message, world.now)
    world.core.from_client(message, world.now)
    assert world.core.ignored > 0


def test_results_that_the_client_knows_do_not_hurry_but_go_before_all_that_comes_after_them() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1, 2, 3)
    core, messages = world.core, {}
    for key in (1, 2, 3):
        plain = pack_result(manager.number, key, 0, key, 0, 0, 0, Verdict.OK, b"")
        messages[key] = mark_delivered(plain) if key < 3 else plain
        core.from_peer(manager.peer, "", messages[key], world.now)
        assert bool(core.to_client) == (key == 3)
        assert core.owes_acks
    assert core.shared.known_to_client == [messages[1], messages[2]]
    assert core.shared.take_for_client() == [messages[1], messages[2], messages[3]]
    assert core.shared.take_for_client() == []
