"""The interchange's mind under any order of events: no task is lost, none is in two places, none exceeds its room."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.core import Core, Settings
from flow_executors.wire import frames
from flow_executors.wire.frames import ExitCode, Kind

DIGEST = b"d" * 16
WHO = frames.Introduction("interchange", "run", platform.python_version())
GPU = TaskSpec(Resources(gpus=1.0))


class Node:
    """What a manager would be: keeps the tasks that it was sent."""

    def __init__(
        self, name: str, peer: bytes, workers: int, prefetch: int, block: str = "0", gpus: float = 0.0
    ) -> None:
        self.peer = peer
        self.offer = frames.Registration(
            name, block, "node", 1, workers, prefetch, float(workers), gpus=gpus, python=platform.python_version()
        )
        self.number = 0
        self.tasks: dict[int, int] = {}  # key -> class
        self.sequence = 0
        self.left = False


class World:
    """A core with a client's and managers' view of it."""

    def __init__(self, **changes: float) -> None:
        settings = replace(Settings("run", platform.python_version(), 0, 1.0, 5.0), **changes)
        self.now = 100.0
        self.core = Core(settings, WHO, lambda: int(self.now * 1e9))
        self.nodes: dict[bytes, Node] = {}
        self.outcomes: dict[int, list[Verdict]] = {}
        self.reasons: dict[int, str] = {}
        self.submitted: set[int] = set()
        self.departures: list[frames.Departure] = []
        self.credits: list[frames.Credit] = []
        self.replies: list[frames.Reply] = []
        self.needed: list[bytes] = []
        self.exits: list[tuple[bytes, ExitCode, str]] = []
        self.recalls: list[tuple[bytes, int]] = []
        self.sent: list[tuple[bytes, bytes]] = []

    def turn(self) -> None:
        self.core.turn(self.now)
        for peer, message in self.core.down:
            self.sent.append((peer, bytes(message)))
            self._down(peer, bytes(message))
        self.core.down.clear()
        for message in self.core.up:
            self._up(bytes(message))
        self.core.up.clear()
        self.core.delivered(False)

    def _down(self, peer: bytes, message: bytes) -> None:
        node = self.nodes.get(peer)
        kind = message[0]
        if kind == Kind.TASKS:
            assert node is not None
            batch = frames.unpack_tasks(message)
            node.tasks.update(dict.fromkeys(batch.keys, batch.class_id))
        elif kind == Kind.WELCOME:
            assert node is not None
            node.number = frames.unpack_welcome(message).manager
        elif kind == Kind.EXIT:
            self.exits.append((peer, *frames.unpack_exit(message)))
        elif kind == Kind.RECALL:
            self.recalls.append((peer, frames.unpack_count(message, Kind.RECALL)))
        elif kind == Kind.CANCEL and node is not None:
            keys, _ = frames.unpack_cancel(message)
            self.finish(node, [key for key in keys if key in node.tasks], Verdict.CANCELLED)

    def _up(self, message: bytes) -> None:
        kind = message[0]
        if kind == Kind.RESULTS:
            batch = frames.unpack_results(message)
            for key, status in zip(batch.keys, batch.statuses, strict=True):
                self.outcomes.setdefault(key, []).append(Verdict(status))
            self.reasons.update(zip(batch.keys, (str(p, "utf-8", "replace") for p in batch.payloads()), strict=True))
        elif kind == Kind.LEFT:
            self.departures.append(frames.unpack_left(message))
        elif kind == Kind.CREDIT:
            self.credits.append(frames.unpack_credit(message))
        elif kind == Kind.REPLY:
            self.replies.append(frames.unpack_reply(message))
        elif kind == Kind.NEED:
            self.needed += frames.unpack_need(message)

    def join(self, node: Node, held: tuple[int, ...] = (), number: int = 0) -> Node:
        self.nodes[node.peer] = node
        hello = frames.pack_hello(frames.Introduction("manager", "run", platform.python_version()))
        self.core.from_peer(node.peer, node.offer.block, hello, self.now)
        self.core.from_peer(node.peer, node.offer.block, frames.pack_register(number, node.offer, held), self.now)
        self.turn()
        return node

    def submit(self, *keys: int, class_id: int = 0) -> None:
        self.submitted.update(keys)
        records = [frames.pack_record(DIGEST, key, class_id, b"") for key in keys]
        message = frames.pack_tasks(class_id, [DIGEST], keys, list(map(len, records)), b"".join(records))
        self.core.from_client(message, self.now)
        self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass, looking whenever the core wants to."""
        end = self.now + seconds
        while (due := self.core.next_deadline(self.now)) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.tick(self.now)
            self.turn()
            if self.core.next_deadline(self.now) == due:
                break
        self.now = max(self.now, end)

    def describe(self, class_id: int, spec: TaskSpec) -> None:
        self.core.from_client(frames.pack_spec(class_id, spec), self.now)

    def finish(self, node: Node, keys: list[int], verdict: Verdict = Verdict.OK) -> None:
        node.sequence += 1
        zeros = [0] * len(keys)
        statuses = bytes([verdict]) * len(keys)
        message = frames.pack_results(
            node.number, node.sequence, 0, keys, zeros, zeros, zeros, statuses, [b""] * len(keys)
        )
        for key in keys:
            node.tasks.pop(key, None)
        self.core.from_peer(node.peer, "", message, self.now)

    def give_back(self, node: Node, keys: list[int]) -> None:
        classes: dict[int, list[int]] = {0: []}
        for key in keys:
            classes.setdefault(node.tasks.pop(key), []).append(key)
        for class_id, some in sorted(classes.items(), reverse=True):
            records = [frames.pack_record(DIGEST, key, class_id, b"") for key in some]
            lengths, body = list(map(len, records)), b"".join(records)
            message = frames.pack_tasks(class_id, [DIGEST], some, lengths, body, kind=Kind.RETURNED, last=not class_id)
            self.core.from_peer(node.peer, "", message, self.now)


def node(name: str = "m", workers: int = 2, prefetch: int = 2, **more: object) -> Node:
    return Node(name, name.encode(), workers, prefetch, **more)  # type: ignore[arg-type]  # test shorthand


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
    assert world.credits[-1] == frames.Credit(1, 3, 5, 2 * 8 + 1024)


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


def test_of_tasks_lost_at_the_end_of_their_block_those_that_ran_for_most_of_it_are_lost_to_walltime() -> None:
    world = World()
    short = node()
    short.offer = replace(short.offer, ends_at_ns=int((world.now + 60) * 1e9))
    world.join(short)
    world.submit(1, 2, 3)
    starts = (int((world.now + 1) * 1e9), int((world.now + 40) * 1e9))
    world.core.from_peer(short.peer, "", frames.pack_beat(frames.Beat(1, 0, 0, (1, 2), starts, (0, 1))), world.now)
    world.now += 57
    world.core.disconnected(short.peer, world.now)
    world.now += 1.5
    world.core.tick(world.now)
    batches = [frames.unpack_results(message) for message in world.core.up if message[0] == Kind.RESULTS]
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
    world = World()
    manager = world.join(node(), held=(7, 8), number=1)
    assert world.core.pool.by_number[manager.number].out == {7, 8}
    world.submit(1, 2, 3)
    assert len(manager.tasks) == 2


def test_another_python_is_turned_away_with_a_reason() -> None:
    world = World()
    hello = frames.pack_hello(frames.Introduction("manager", "run", "2.7.1"))
    world.core.from_peer(b"x", "0", hello, world.now)
    world.turn()
    assert world.exits[0][1] is ExitCode.REFUSED
    assert "2.7.1" in world.exits[0][2]
    assert "2.7.1" in world.departures[0].reason


def test_a_manager_cannot_claim_another_block_than_that_of_its_key() -> None:
    world = World()
    manager = node(block="1")
    world.nodes[manager.peer] = manager
    hello = frames.pack_hello(frames.Introduction("manager", "run", platform.python_version()))
    world.core.from_peer(manager.peer, "0", hello, world.now)
    world.core.from_peer(manager.peer, "0", frames.pack_register(0, manager.offer, ()), world.now)
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
    world.core.from_peer(b"stranger", "", frames.pack_beat(frames.Beat(1, 2, 3)), world.now)
    assert world.core.down == [(b"stranger", frames.pack_again())]


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


def test_a_task_that_fits_on_no_node_waits_a_while_for_blocks_that_were_asked_for() -> None:
    world = World()
    world.core.admitted(frames.KeyChange(admit=(("key", "0"), ("other", "1"))))
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
    assert "running_time_min=60 s, a block lasts 30 s" in world.reasons[1]


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
    recalled = [manager for manager in managers if (manager.peer, frames.ALL) in world.recalls]
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


def test_cancel_reaches_tasks_that_wait_and_tasks_that_are_out() -> None:
    world = World()
    manager = world.join(node(workers=1, prefetch=0))
    world.submit(1, 2)
    world.core.from_client(frames.pack_cancel([1, 2, 99], False), world.now)
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
    command = frames.Command(1, "drain", ("0", "1"), (), 5.0)
    world.core.from_client(frames.pack_command(command), world.now)
    world.turn()
    drained = {activity.block for activity in world.replies[0].blocks}
    busy = {n.offer.block for n in world.nodes.values() if n.tasks}
    assert len(drained) == 1
    assert not drained & busy


def test_a_held_manager_gets_nothing_until_it_is_released() -> None:
    world = World()
    manager = world.join(node())
    world.core.from_client(frames.pack_command(frames.Command(1, "hold", (), ("m",))), world.now)
    world.submit(1)
    assert manager.tasks == {}
    world.core.from_client(frames.pack_command(frames.Command(2, "release", (), ("m",))), world.now)
    world.turn()
    assert set(manager.tasks) == {1}


def test_a_function_goes_once_to_each_manager_before_its_first_task() -> None:
    world = World()
    world.core.from_client(frames.pack_blob(DIGEST, b"body")[0], world.now)
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
    world.core.from_client(frames.pack_blob(DIGEST, b"body")[0], world.now)
    world.turn()
    assert (manager.peer, frames.pack_blob(DIGEST, b"body")[0]) in world.sent


def test_results_are_acknowledged_after_they_were_delivered() -> None:
    world = World()
    manager = world.join(node())
    world.submit(1)
    world.finish(manager, [1])
    world.turn()
    assert world.core.owes_acks
    world.core.delivered(True)
    assert world.core.down == [(manager.peer, frames.pack_ack(1))]
    assert not world.core.owes_acks


@pytest.mark.parametrize("message", [b"", b"\x00", b"T", b"R" * 40, b"G" * 40, b"Z" * 100, bytes(range(60, 90))])
def test_nonsense_is_counted_and_dropped(message: bytes) -> None:
    world = World()
    manager = world.join(node())
    world.core.from_peer(manager.peer, "0", message, world.now)
    world.core.from_peer(b"stranger", "0", message, world.now)
    world.core.from_client(message, world.now)
    assert world.core.ignored > 0


CLASSES = (
    TaskSpec(Resources(cores=2.0)),
    TaskSpec(priority=3),
    TaskSpec(priority=-2, walltime_s=4.0),
    TaskSpec(Resources(cores=3.0, memory_mb=10)),
)


class InterchangeMachine(RuleBasedStateMachine):
    """Any order of submissions, results, joins, breaks, returns, cancels and silence."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.next_key = 1
        self.next_node = 0
        for class_id, spec in enumerate(CLASSES, start=1):
            self.world.describe(class_id, spec)

    def living(self) -> list[Node]:
        by_peer = self.world.core.pool.by_peer
        return [n for peer, n in self.world.nodes.items() if peer in by_peer and by_peer[peer].cut_off_at is None]

    @rule(count=st.integers(1, 12))
    def submit(self, count: int) -> None:
        keys = range(self.next_key, self.next_key + count)
        self.next_key += count
        self.world.submit(*keys)

    @rule(count=st.integers(1, 4), class_id=st.integers(1, len(CLASSES)))
    def submit_of_a_class(self, count: int, class_id: int) -> None:
        keys = range(self.next_key, self.next_key + count)
        self.next_key += count
        self.world.submit(*keys, class_id=class_id)

    @rule(workers=st.integers(1, 4), prefetch=st.integers(0, 6), block=st.sampled_from("01"))
    def join(self, workers: int, prefetch: int, block: str) -> None:
        self.next_node += 1
        self.world.join(node(f"m{self.next_node}", workers, prefetch, block=block))

    @precondition(lambda self: self.living())
    @rule(data=st.data(), verdict=st.sampled_from([Verdict.OK, Verdict.APP_ERROR, Verdict.LOST]))
    def finish(self, data: st.DataObject, verdict: Verdict) -> None:
        chosen = data.draw(st.sampled_from(self.living()))
        if chosen.tasks:
            keys = data.draw(st.lists(st.sampled_from(sorted(chosen.tasks)), unique=True, min_size=1))
            self.world.finish(chosen, keys, verdict)
            self.world.turn()

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.living()))
        if chosen.tasks:
            self.world.give_back(chosen, data.draw(st.lists(st.sampled_from(sorted(chosen.tasks)), unique=True)))
            self.world.turn()

    @precondition(lambda self: self.living())
    @rule(data=st.data(), wait=st.sampled_from([0.0, 0.5, 1.5]), back=st.booleans())
    def break_connection(self, data: st.DataObject, wait: float, back: bool) -> None:
        world, chosen = self.world, data.draw(st.sampled_from(self.living()))
        world.core.disconnected(chosen.peer, world.now)
        self.advance(wait)
        if back:
            self.next_node += 1
            chosen.peer = f"again{self.next_node}".encode()
            kept = [key for key in chosen.tasks if data.draw(st.booleans())]
            chosen.tasks = {key: chosen.tasks[key] for key in kept}
            world.join(chosen, tuple(kept), chosen.number)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 6.0]))
    def advance(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.core.tick(self.world.now)
        self.world.turn()

    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data: st.DataObject, kill: bool) -> None:
        if self.world.submitted:
            keys = data.draw(st.lists(st.sampled_from(sorted(self.world.submitted)), unique=True))
            self.world.core.from_client(frames.pack_cancel(keys, kill), self.world.now)
            self.world.turn()
            self.world.turn()

    @invariant()
    def every_task_is_in_exactly_one_place(self) -> None:
        core = self.world.core
        places: list[int] = core.waiting.pending()
        for manager in core.pool.by_number.values():
            places += [*manager.out, *manager.special]
        places += list(self.world.outcomes)
        assert sorted(places) == sorted(set(places))
        assert set(places) >= self.world.submitted
        assert all(len(outcomes) == 1 for outcomes in self.world.outcomes.values())

    @invariant()
    def nobody_has_more_than_its_room_and_nothing_waits_while_there_is_some(self) -> None:
        core = self.world.core
        for manager in core.pool.by_number.values():
            assert len(manager.out) + manager.special_slots <= manager.slots + manager.prefetch + 4
            assert manager.special_slots <= manager.slots
        if core.waiting.default.count:
            assert all(manager.room <= 0 for manager in core.pool.by_number.values())

    @invariant()
    def the_indexes_agree_with_the_managers(self) -> None:
        pool = self.world.core.pool
        assert pool.total_slots == sum(manager.slots for manager in pool.by_number.values())
        for manager in pool.by_number.values():
            assert (manager.number in pool.idle) == (manager.room > 0 and manager.free_slots > 0)
            assert (manager.number in pool.working) == bool(manager.outstanding)
            assert manager.profile is not None
            assert (manager.number in manager.profile.free) == (manager.free_slots > 0 and not manager.closed)

    def teardown(self) -> None:
        """Whatever has happened: with one large node more, and time, every task gets its outcome."""
        world = self.world
        world.join(node("last", workers=4, prefetch=0, block="0"))
        for _ in range(400):
            if set(world.outcomes) >= world.submitted:
                return
            world.now += 0.3
            world.core.tick(world.now)
            world.turn()
            for one in self.living():
                if one.peer in {peer for peer, _ in world.recalls} and one.tasks:
                    world.give_back(one, sorted(one.tasks)[4:])
                world.core.from_peer(one.peer, "", frames.pack_beat(frames.Beat(one.number, 1, 0)), world.now)
                world.finish(one, list(one.tasks))
            world.recalls.clear()
            world.turn()
        raise AssertionError(f"no outcome for {sorted(world.submitted - set(world.outcomes))}")


InterchangeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestInterchange = InterchangeMachine.TestCase
