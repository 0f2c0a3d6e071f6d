"""The interchange's mind under any order of events: no task is lost, none is in two places, none exceeds its room."""

from __future__ import annotations

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from interchange_world import Node, World, node

from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_executors.wire.messages import Heartbeat, pack_cancel, pack_heartbeat

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
            self.world.core.from_client(pack_cancel(keys, kill), self.world.now)
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
                world.core.from_peer(one.peer, "", pack_heartbeat(Heartbeat(one.number, 1, 0)), world.now)
                world.finish(one, list(one.tasks))
            world.recalls.clear()
            world.turn()
        raise AssertionError(f"no outcome for {sorted(world.submitted - set(world.outcomes))}")


InterchangeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestInterchange = InterchangeMachine.TestCase
