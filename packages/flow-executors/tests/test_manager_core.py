"""The manager's decisions: which worker gets which task, and what becomes of tasks when workers die."""

import math
from collections import deque

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from manager_world import LONG_S, SHORT_S, given_to, manager, quick, tasks

from flow_core.interfaces.call import Resources, TaskSpec
from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.manager.manager_core import LEAST_WAIT_S, ManagerCore


def test_idle_workers_get_one_task_each_before_anybody_gets_two():
    core = manager(slots=3)
    quick(core)
    core.accept(0, tasks(1, 2, 3, 4))
    ranks = [assignment.rank for assignment in core.assign(0.0)]
    assert sorted(ranks[:3]) == [0, 1, 2]
    assert len(ranks) == 4


def test_nothing_is_prefetched_before_it_is_known_that_tasks_are_short():
    core = manager()
    core.accept(0, tasks(1, 2, 3))
    assert len(core.assign(0.0)) == 2
    assert core.estimator.prefetch == 0


def test_short_tasks_are_prefetched_to_the_depth_of_the_pipe():
    core = manager(slots=1, depth=15)
    quick(core)
    core.accept(0, tasks(*range(100)))
    assert len(core.assign(0.0)) == 15


def test_results_wait_for_others_while_every_worker_has_enough_to_do():
    core = manager(slots=2)
    assert core.results_wait_s() == LEAST_WAIT_S
    core.accept(0, tasks(*range(100)))
    for key, rank in given_to(core.assign(0.0)).items():
        core.finished(rank, [key], 0.002, 0.0)
    core.assign(0.0)
    held = [len(worker.held) for worker in core.workers.values()]
    assert core.estimator.depth == 8
    assert min(held) == 8
    assert core.results_wait_s() == pytest.approx(0.0035)  # a quarter of 7 times 2 ms
    core.finished(1, list(core.workers[1].held), 7 * 0.002, 0.0)
    assert core.results_wait_s() == LEAST_WAIT_S  # that worker has nothing to do


def test_results_of_very_short_tasks_wait_little():
    core = manager(slots=2)
    quick(core)
    core.accept(0, tasks(*range(200)))
    core.assign(0.0)
    assert min(len(worker.held) for worker in core.workers.values()) == 63
    assert core.results_wait_s() == LEAST_WAIT_S


def test_a_long_task_ends_the_prefetching():
    core = manager()
    quick(core)
    assert core.estimator.prefetch > 0
    core.accept(0, tasks(1))
    (assignment,) = core.assign(0.0)
    core.finished(assignment.rank, [1], LONG_S, 1.0)
    assert core.estimator.prefetch == 0


@pytest.mark.parametrize(("limit", "in_advance"), [(0, 0), (1, 1), (3, 3)])
def test_prefetch_capacity_caps_what_is_taken_in_advance(limit, in_advance):
    core = manager(prefetch=limit)
    quick(core)
    assert core.estimator.prefetch == in_advance
    core.accept(0, tasks(*range(50)))
    assert len(core.assign(0.0)) <= 2 + 2 * limit


def test_what_lies_in_a_pipe_is_taken_back_for_an_idle_worker():
    core = manager()
    quick(core)
    core.accept(0, tasks(1, 2, 3, 4, 5, 6, 7, 8))
    ranks = given_to(core.assign(0.0))
    mine = [key for key, rank in ranks.items() if rank == 0]
    core.finished(1, [key for key, rank in ranks.items() if rank == 1], SHORT_S, 0.0)
    assert core.readbacks(0.0005) == []
    ((victim, count),) = core.readbacks(0.002)
    assert (victim, count) == (0, 1)
    core.took_back(0, tasks(mine[1]))
    assert given_to(core.assign(0.002))[mine[1]] == 1


def test_when_a_worker_dies_only_what_it_ran_is_lost():
    core = manager(slots=1)
    quick(core)
    core.accept(0, tasks(1, 2, 3))
    core.assign(0.0)
    worker_loss = core.worker_down(0, tasks(2, 3))
    assert worker_loss.keys == (1,)
    assert not worker_loss.termination
    core.worker_up(0, 200, 63, 1.0)
    assert [assignment.key for assignment in core.assign(1.0)] == [2, 3]


def test_a_worker_that_dies_idle_loses_nothing():
    core = manager()
    assert core.worker_down(1, []).keys == ()


def test_a_packet_that_does_not_fit_into_the_pipe_is_handed_out_again():
    core = manager(slots=1)
    core.accept(0, tasks(1))
    (assignment,) = core.assign(0.0)
    core.not_written(assignment)
    assert core.held() == [1]
    assert core.waiting == 1


def test_cancelling_takes_a_waiting_task_out():
    core = manager()
    core.accept(0, tasks(1, 2, 3))
    core.assign(0.0)
    core.cancel([3], kill=False)
    assert core.take_effects().cancelled == [3]
    assert 3 not in core.held()


def test_cancelling_reaches_into_the_pipe():
    core = manager(slots=1)
    quick(core)
    core.accept(0, tasks(1, 2, 3))
    core.assign(0.0)
    core.cancel([2], kill=False)
    ((rank, _),) = core.readbacks(0.0)
    core.took_back(rank, tasks(2, 3))
    assert core.take_effects().cancelled == [2]
    assert [assignment.key for assignment in core.assign(0.0)] == [3]


def test_cancelling_a_running_task_kills_only_when_told_to():
    core = manager(slots=1)
    core.accept(0, tasks(1))
    core.assign(0.0)
    core.cancel([1], kill=False)
    core.took_back(0, [])
    effects = core.take_effects()
    assert (effects.kill, effects.begun) == ([], [(1, 0, 0.0)])  # who asked hears that it runs
    core.cancel([1], kill=True)
    core.took_back(0, [])
    assert core.take_effects().kill == [0]


def test_the_death_of_a_worker_killed_for_a_cancelled_task_says_so():
    core = manager(slots=1)
    core.accept(0, tasks(1))
    core.assign(0.0)
    core.cancel([1], kill=True)
    core.took_back(0, [])
    worker_loss = core.worker_down(0, [])
    assert (worker_loss.keys, worker_loss.termination) == ((1,), "cancel")


def test_a_recall_gives_back_the_newest_that_no_worker_has():
    core = manager(slots=1)
    core.accept(0, tasks(1, 2, 3, 4))
    core.assign(0.0)
    core.recall(2)
    assert [key for _, key, _ in core.take_effects().returned] == [4, 3]


def test_a_recall_reaches_into_pipes_when_that_is_not_enough():
    core = manager(slots=1)
    quick(core)
    core.accept(0, tasks(1, 2, 3))
    core.assign(0.0)
    core.recall(5)
    assert core.recalling()
    ((rank, count),) = core.readbacks(0.0)
    assert (rank, count) == (0, 2)
    core.took_back(rank, tasks(2, 3))
    assert sorted(key for _, key, _ in core.take_effects().returned) == [2, 3]
    assert not core.recalling()


def test_draining_returns_all_that_has_not_started_and_what_comes_later():
    core = manager(slots=1)
    core.accept(0, tasks(1, 2))
    core.assign(0.0)
    core.drain()
    core.accept(0, tasks(3))
    assert sorted(key for _, key, _ in core.take_effects().returned) == [2, 3]
    assert not core.quiet
    core.finished(0, [1], SHORT_S, 1.0)
    assert core.quiet


def test_a_task_that_needs_all_slots_waits_for_them_and_is_not_overtaken():
    core = manager(slots=2)
    core.add_class(5, ResourceRequest(slots=2))
    core.accept(0, tasks(1, 2))
    rank_of = given_to(core.assign(0.0))
    core.accept(5, tasks(50))
    core.accept(0, tasks(3, 4))
    core.finished(rank_of[1], [1], SHORT_S, 1.0)
    assert core.assign(1.0) == []
    core.finished(rank_of[2], [2], SHORT_S, 1.0)
    assert [assignment.key for assignment in core.assign(1.0)] == [50]
    assert core.assign(1.0) == []
    core.finished(next(rank for rank, worker in core.workers.items() if worker.held), [50], LONG_S, 2.0)
    assert sorted(assignment.key for assignment in core.assign(2.0)) == [3, 4]


def test_higher_priority_goes_first_and_negative_waits_for_the_default_class():
    core = manager(slots=1)
    for class_id, priority in ((1, 1), (2, 9), (3, -1)):
        core.add_class(class_id, ResourceRequest(priority=priority))
    core.accept(3, tasks(30))
    core.accept(1, tasks(10))
    core.accept(2, tasks(20))
    core.accept(0, tasks(1))
    order = []
    for _ in range(4):
        (assignment,) = core.assign(0.0)
        order.append(assignment.key)
        core.finished(0, [assignment.key], SHORT_S, 0.0)
    assert order == [20, 10, 1, 30]


def test_memory_bounds_how_many_tasks_run_together():
    core = manager(slots=4, memory_mb=1000)
    core.add_class(1, ResourceRequest(memory_mb=400))
    core.accept(1, tasks(1, 2, 3))
    assert len(core.assign(0.0)) == 2


def test_fractions_of_a_device_share_it_and_whole_ones_stay_free():
    core = manager(slots=4, devices=("0", "1"))
    core.add_class(1, ResourceRequest(gpus=0.5))
    core.add_class(2, ResourceRequest(gpus=1.0))
    core.accept(1, tasks(1, 2))
    core.accept(2, tasks(3))
    devices = {assignment.key: assignment.devices for assignment in core.assign(0.0)}
    assert devices[1] == devices[2]
    assert set(devices[3]).isdisjoint(devices[1])


def test_a_task_beyond_its_walltime_and_grace_has_its_worker_killed():
    core = manager(slots=1)
    core.add_class(1, ResourceRequest(walltime_s=10.0))
    core.accept(1, tasks(1))
    core.assign(100.0)
    core.overdue(114.9)
    assert core.take_effects().kill == []
    assert core.deadline(114.9) == 115.0
    core.overdue(115.0)
    assert core.take_effects().kill == [0]
    worker_loss = core.worker_down(0, [])
    assert (worker_loss.termination, worker_loss.walltime_s) == ("walltime", 10.0)


def test_a_task_for_which_the_block_has_not_time_enough_left_is_given_back_instead_of_started():
    core = ManagerCore(Capacity(1), None, ends_at=100.0)
    core.worker_up(0, 100, 63, 0.0)
    core.add_class(1, ResourceRequest(need_s=60.0))
    core.accept(1, tasks(1, 2))
    assert given_to(core.assign(39.0)) == {1: 0}
    core.finished(0, [1], 2.0, 41.0)
    assert core.assign(41.0) == []
    assert [key for _, key, _ in core.take_effects().returned] == [2]


def telling(slots=1, ends_at=None, warn_s=30.0):
    """Return a core whose workers each run a task that asked to be told of the end of the block."""
    core = ManagerCore(Capacity(slots), None, ends_at=ends_at)
    core.add_class(1, ResourceRequest(warn_s=warn_s, need_s=warn_s))
    for rank in range(slots):
        core.worker_up(rank, 100 + rank, 63, 0.0)
    core.accept(1, tasks(*range(slots)))
    assert len(core.assign(0.0)) == slots
    return core


def test_a_task_that_asked_for_it_is_told_as_long_before_the_end_of_the_block_as_it_asked():
    core = telling(ends_at=100.0)
    assert core.deadline(0.0) == 70.0
    assert core.to_tell(69.9) == []
    assert core.to_tell(70.0) == [(0, 100)]


def test_it_is_told_again_until_its_worker_has_answered():
    core = telling(ends_at=100.0)
    assert core.to_tell(70.0) == [(0, 100)]
    assert core.to_tell(70.5) == []
    assert core.deadline(70.5) == 71.0
    assert core.to_tell(71.0) == [(0, 100)]
    core.told(0, 5)  # of another task, before this one
    assert core.to_tell(72.0) == [(0, 100)]
    core.told(0, 0)
    assert core.to_tell(90.0) == []
    assert core.deadline(90.0) is None


def test_a_task_that_has_ended_is_not_told():
    core = telling(ends_at=100.0)
    core.finished(0, [0], 1.0, 60.0)
    assert core.to_tell(80.0) == []
    core = telling(ends_at=100.0)
    core.worker_down(0, [])
    assert core.to_tell(80.0) == []


def test_a_notice_tells_at_once_and_says_how_long_the_slowest_needs():
    core = telling(slots=2)
    assert core.deadline(5.0) == math.inf
    core.told(0, core.workers[0].task.key)
    assert core.end_is_near(5.0) == 30.0
    assert core.to_tell(5.0) == [(1, 101)]


def test_a_notice_is_nothing_to_tasks_that_did_not_ask():
    core = manager(slots=1)
    core.accept(0, tasks(1))
    core.assign(0.0)
    assert core.end_is_near(1.0) == 0.0
    assert core.to_tell(1.0) == []


def test_a_block_must_have_the_time_of_the_task_and_that_in_which_it_saves_its_work():
    spec = TaskSpec(running_time_min_s=60.0, warn_before_end_s=30.0)
    assert ResourceRequest.of(spec, Capacity(1)).need_s == 90.0


def test_of_what_a_worker_holds_only_the_first_has_run():
    core = manager(slots=1)
    quick(core)
    core.accept(0, tasks(1, 2))
    core.assign(5.0)
    assert core.running_for(8.0) == [(1, 3.0), (2, 0.0)]


def test_a_start_is_told_once_after_it_has_lasted():
    core = manager(slots=1)
    core.accept(0, tasks(1))
    core.assign(5.0)
    assert core.starts(5.5, 1.0) == []
    assert core.starts(6.5, 1.0) == [(1, 0, 5.0)]
    assert core.starts(7.5, 1.0) == []


def test_resources_say_what_a_task_takes():
    capacity = Capacity(slots=4, cores_per_worker=2.0, mem_per_worker_mb=100)
    assert ResourceRequest.of(TaskSpec(Resources(cores=3.0)), capacity).slots == 2
    assert ResourceRequest.of(TaskSpec(Resources(cores=0.1)), capacity).slots == 1
    assert ResourceRequest.of(TaskSpec(Resources(cores=3.0)), capacity).memory_mb == 200


class Mixes(RuleBasedStateMachine):
    """Any order of events: no task is lost, none is in two places, none runs twice unless reported lost."""

    @initialize(slots=st.integers(1, 4), prefetch=st.sampled_from([None, 0, 1, 7]), depth=st.integers(1, 8))
    def begin(self, slots, prefetch, depth):
        self.depth = depth
        self.core = ManagerCore(Capacity(slots, memory_mb=1000, devices=("0", "1")), prefetch)
        self.core.add_class(1, ResourceRequest(slots=min(2, slots), memory_mb=300))
        self.core.add_class(2, ResourceRequest(gpus=0.5, priority=3, walltime_s=5.0))
        self.core.add_class(3, ResourceRequest(priority=-2))
        self.slots = slots
        self.now = 0.0
        self.next_key = 1
        self.pipes: dict[int, deque] = {}  # rank -> packets not yet taken by the worker
        self.running: dict[int, int | None] = {}
        self.open: set[int] = set()  # keys that the core must know
        self.class_of: dict[int, int] = {}
        self.started: set[int] = set()
        for rank in range(slots):
            self.up(rank)

    def up(self, rank):
        self.pipes[rank], self.running[rank] = deque(), None
        self.core.worker_up(rank, 1000 + rank, self.depth, self.now)

    def settle(self):
        """What the shell does each turn."""
        for rank, count in self.core.readbacks(self.now):
            taken = [self.pipes[rank].popleft() for _ in range(min(count, len(self.pipes[rank])))]
            self.core.took_back(rank, taken)
        for assignment in self.core.assign(self.now):
            if len(self.pipes[assignment.rank]) >= self.depth:
                self.core.not_written(assignment)
                continue
            self.pipes[assignment.rank].append((assignment.key, assignment.record))
        effects = self.core.take_effects()
        for key in effects.cancelled:
            assert key not in self.started
            self.open.remove(key)
        for class_id, key, _ in effects.returned:
            assert key not in self.started
            assert class_id == self.class_of[key]
            self.open.remove(key)
        for rank in effects.kill:
            self.die(rank)

    def take(self, rank):
        """A worker takes its next packet."""
        if self.running[rank] is None and self.pipes[rank]:
            key, _ = self.pipes[rank].popleft()
            assert key not in self.started, "ran twice"
            self.started.add(key)
            self.running[rank] = key

    def die(self, rank):
        unstarted = list(self.pipes[rank])
        worker_loss = self.core.worker_down(rank, unstarted)
        expected = () if self.running[rank] is None else (self.running[rank],)
        assert worker_loss.keys == expected
        self.open.difference_update(expected)
        self.up(rank)

    @rule(class_id=st.sampled_from([0, 0, 0, 1, 2, 3]), count=st.integers(1, 12), big=st.booleans())
    def accept(self, class_id, count, big):
        keys = range(self.next_key, self.next_key + count)
        self.next_key += count
        self.open.update(keys)
        self.class_of.update(dict.fromkeys(keys, class_id))
        self.core.accept(class_id, [(key, b"x" * (4000 if big else 10)) for key in keys])
        self.settle()

    @rule(rank=st.integers(0, 3), seconds=st.sampled_from([SHORT_S, 0.005, LONG_S]))
    def work(self, rank, seconds):
        rank %= self.slots
        self.take(rank)
        key = self.running[rank]
        if key is not None:
            self.now += seconds
            self.running[rank] = None
            self.open.discard(key)
            self.core.finished(rank, [key], seconds, self.now)
        self.settle()

    @rule(rank=st.integers(0, 3))
    def only_take(self, rank):
        self.take(rank % self.slots)

    @rule(rank=st.integers(0, 3))
    def kill(self, rank):
        self.die(rank % self.slots)
        self.settle()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data, kill):
        self.core.cancel([data.draw(st.sampled_from(sorted(self.open)))], kill)
        self.settle()

    @rule(count=st.integers(1, 20))
    def recall(self, count):
        self.core.recall(count)
        self.settle()

    @rule(seconds=st.sampled_from([0.0001, 0.002, 20.0]))
    def wait(self, seconds):
        self.now += seconds
        self.core.overdue(self.now)
        self.settle()

    @rule()
    def drain_and_resume(self):
        self.core.drain()
        self.settle()
        self.core.resume()

    @invariant()
    def every_task_is_in_one_place(self):
        if hasattr(self, "core"):
            held = self.core.held()
            assert len(held) == len(set(held))
            assert set(held) == self.open

    @invariant()
    def the_node_is_never_overcommitted(self):
        if hasattr(self, "core"):
            special = [worker.task for worker in self.core.workers.values() if worker.task is not None]
            busy = sum(1 for worker in self.core.workers.values() if worker.held and worker.task is None)
            assert sum(task.demand.slots for task in special) + busy <= self.slots
            assert sum(task.demand.memory_mb for task in special) <= 1000

    def teardown(self):
        """Left alone, everything ends."""
        if not hasattr(self, "core"):
            return
        for _ in range(10 * len(self.open) + 10):
            for rank in range(self.slots):
                self.work(rank, SHORT_S)
        assert not self.open
        assert self.core.quiet


TestMixes = Mixes.TestCase
TestMixes.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
