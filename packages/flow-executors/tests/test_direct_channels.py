"""Direct channels: whatever happens, in any order, each task has one outcome, and nothing waits for ever."""

from __future__ import annotations

import fcntl
import os

import pytest
from direct_channels_world import PEER, Node, Script
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flow_core.interfaces.outcome import Verdict
from flow_executors.direct.worker_channels import TELL_AFTER_S
from flow_executors.wire.direct_messages import DirectChannelOffer, WorkerLease, pack_channel_offer
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import DEFAULT_CLASS, DrainMode, unpack_drain
from flow_executors.worker.packets import FRAME, LANE_ROOM, PACKET, is_direct


class Story(RuleBasedStateMachine):
    """Anything happens in any order; every task has one outcome, and none waits for ever."""

    @initialize(workers=st.integers(1, 3))
    def begin(self, workers: int) -> None:
        """A manager with its workers has come, and its channels are open."""
        self.now = 10.0
        self.node = Node(workers)
        self.script = Script()
        self.script.admit(self.node, workers)
        for rank in range(workers):
            self.node.spawn(rank)
        self.deliver_up(workers)
        assert len(self.script.channels) == workers
        self.keys: set[int] = set()
        self.killed: set[int] = set()
        self.finished: set[int] = set()
        self.starts: dict[int, int] = {}
        self.by_lane = 0

    # -- what happens

    @rule(size=st.sampled_from([0, 0, 0, 10, PACKET]), count=st.integers(1, 4))
    def submit(self, size: int, count: int) -> None:
        """Tasks of the default class."""
        for _ in range(count):
            key = len(self.keys) + 1
            self.keys.add(key)
            self.script.submit(key, size, DEFAULT_CLASS, self.now)

    @rule()
    def submit_special(self) -> None:
        """A task that takes two workers."""
        key = len(self.keys) + 1
        self.keys.add(key)
        if len(self.node.workers) > 1:
            self.script.submit(key, 0, 1, self.now)
        else:
            self.script.submit(key, 0, DEFAULT_CLASS, self.now)

    @rule(count=st.integers(1, 5))
    def deliver_down(self, count: int) -> None:
        """Messages reach the manager."""
        while count and self.script.to_managers:
            self.node.take(self.script.to_managers.popleft(), self.now)
            count -= 1

    @rule(count=st.integers(1, 5))
    def deliver_up(self, count: int) -> None:
        """Messages reach the script."""
        while count and self.node.to_client:
            self.script.hear(self.node.to_client.popleft(), self.now)
            count -= 1

    @rule()
    def listen(self) -> None:
        """The script looks at its channels."""
        self.script.listen(self.now)

    @rule(rank=st.integers(0, 2))
    def start(self, rank: int) -> None:
        """A worker takes a task."""
        if rank in self.node.workers and not self.node.workers[rank].killed_at:
            key = self.node.start(rank)
            if key is not None:
                self.starts[key] = self.starts.get(key, 0) + 1
                packet = self.node.workers[rank].running
                self.by_lane += packet is not None and is_direct(packet)

    @rule(rank=st.integers(0, 2), large=st.booleans())
    def finish(self, rank: int, large: bool) -> None:
        """A worker's task ends."""
        if rank in self.node.workers and self.node.workers[rank].running is not None:
            self.finished.add(self.node.finish(rank, large, self.now))

    @rule(rank=st.integers(0, 2))
    def die(self, rank: int) -> None:
        """A worker dies."""
        if rank in self.node.workers:
            self.node.die(rank, self.now)

    @rule()
    def kill(self) -> None:
        """Workers that are to be killed are dead."""
        for rank, worker in list(self.node.workers.items()):
            if worker.killed_at:
                self.node.die(rank, self.now)

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data: st.DataObject, kill: bool) -> None:
        """The user cancels a task."""
        key = data.draw(st.sampled_from(sorted(self.keys)))
        self.killed.add(key)
        self.script.cancel([key], kill, self.now)

    @rule(seconds=st.sampled_from([0.01, TELL_AFTER_S, 2.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.script.listen(self.now)

    @rule()
    def drain(self) -> None:
        """The block is to leave."""
        self.script.drain(self.now)

    # -- what holds

    @invariant()
    def outcomes_are_true(self) -> None:
        """What a worker has finished is never lost, what it has not is never right, and what nobody cancelled runs."""
        for key, verdict in self.script.outcomes.items() if hasattr(self, "script") else ():
            assert (verdict is Verdict.OK) == (key in self.finished)
            assert verdict is not Verdict.CANCELLED or key in self.killed

    @invariant()
    def no_task_is_started_twice(self) -> None:
        """A worker's death ends a task, or it had not begun."""
        assert all(count == 1 for count in getattr(self, "starts", {}).values())

    @invariant()
    def no_task_waits_behind_another(self) -> None:
        """Nothing is in the pipe of a worker that is busy, once both sides have heard what the other has said.

        With one exception: a worker that the script holds free for itself may be killed for a task before.
        """
        if hasattr(self, "node") and not self.script.to_managers and not self.node.to_client:
            for worker in self.node.workers.values():
                assert not (worker.running is not None and worker.waits) or worker.killed_at

    def teardown(self) -> None:
        """In the end all tasks end, but those that wait for another block."""
        if not hasattr(self, "script"):
            return
        try:
            self.come_to_the_end()
        finally:
            self.script.channels.close()
            for worker in self.node.workers.values():
                worker.close()

    def come_to_the_end(self) -> None:
        """Let everything happen that is under way."""
        for _ in range(400):
            self.deliver_down(50)
            self.kill()
            for rank in list(self.node.workers):
                self.start(rank)
                self.finish(rank, False)
            self.deliver_up(50)
            self.listen()
        waiting = self.script.core.waiting.count
        for key in self.keys - self.script.outcomes.keys():
            assert self.node.core.draining, f"task {key} has no outcome"
        assert len(self.keys - self.script.outcomes.keys()) == waiting
        if self.node.core.draining:
            assert self.node.core.quiet
        assert not any(manager.outstanding for manager in self.script.core.pool.by_number.values())


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


@pytest.fixture
def story():
    """Give a story that has begun, with two workers."""
    made = Story()
    made.begin(2)
    yield made
    made.teardown()


def test_a_lone_small_task_goes_over_a_lane_and_the_manager_hears_of_the_first_only(story):
    for key in range(1, 10):
        story.submit(0, 1)
        assert [rank for rank in (0, 1) if story.node.workers[rank].waits] == [0]
        story.start(0)
        story.finish(0, False)
        story.listen()
        assert story.script.outcomes[key] is Verdict.OK
    assert [message[0] for message in story.script.to_managers] == [Kind.CLAIM]
    assert story.by_lane == 9


def test_a_manager_with_a_task_that_is_too_large_is_given_a_worker_back(story):
    story.submit(0, 2)  # both workers are claimed
    story.start(0)
    story.finish(0, False)
    story.listen()
    story.submit(PACKET, 1)
    story.deliver_down(10)
    assert story.start(0) is None
    assert story.node.workers[0].running is not None
    assert not is_direct(story.node.workers[0].running)


def test_what_takes_long_is_told_once_and_its_end_too(story):
    story.submit(0, 1)
    story.start(0)
    story.wait(TELL_AFTER_S)
    story.deliver_down(10)
    story.wait(TELL_AFTER_S)
    assert not story.script.to_managers
    assert story.node.core.held() == [1]
    assert story.node.core.starts(story.now, 0.4) == [(1, 0, pytest.approx(10.0, abs=0.01))]
    story.finish(0, False)
    story.listen()
    story.deliver_down(10)
    assert story.node.core.held() == []
    assert story.node.core.claimed


def test_a_worker_that_writes_what_is_no_result_is_replaced_and_its_task_lost(story):
    story.submit(0, 1)
    story.start(0)
    worker = story.node.workers[0]
    os.write(worker.lane_in, FRAME.pack(LANE_ROOM + 1, 1, 0, 0, 0))
    story.listen()
    assert story.script.outcomes[1] is Verdict.LOST
    story.deliver_down(10)
    assert worker.killed_at
    story.submit(0, 2)
    assert story.node.workers[1].waits


def test_a_lane_that_is_not_the_one_offered_is_not_opened(story):
    worker = story.node.workers[0]
    offer = DirectChannelOffer(story.node.number, 0, worker.pid + 100, worker.task_in, worker.direct_out, 1, 2)
    before = len(os.listdir("/proc/self/fd"))
    story.script.hear(pack_channel_offer(offer), story.now)
    assert len(os.listdir("/proc/self/fd")) == before - 2  # those of the worker that was there
    assert len(story.script.channels) == 1


def test_a_lane_that_is_offered_again_is_the_one_that_is_open(story):
    story.submit(0, 1)
    worker = story.node.workers[0]
    ends = worker.task_in, worker.direct_out
    inodes = [os.fstat(end).st_ino for end in ends]
    story.script.hear(
        pack_channel_offer(DirectChannelOffer(story.node.number, 0, worker.pid, *ends, *inodes)), story.now
    )
    story.die(0)
    story.deliver_up(10)
    story.deliver_down(10)
    assert story.node.core.held() == [1]  # given on


def test_there_are_not_more_lanes_than_can_be_watched_and_the_other_workers_are_their_managers(monkeypatch):
    monkeypatch.setattr("flow_executors.direct.worker_channels.MOST_LANES", 1)
    node, script = Node(3), Script()
    script.admit(node, 3)
    for rank in range(3):
        node.spawn(rank)
    while node.to_client:
        script.hear(node.to_client.popleft(), 0.0)
    assert len(script.channels) == 1
    for key in range(1, 4):
        script.submit(key, 0, DEFAULT_CLASS, 0.0)
    while script.to_managers:
        node.take(script.to_managers.popleft(), 0.0)
    assert all(worker.waits for worker in node.workers.values())
    script.channels.close()
    for worker in node.workers.values():
        worker.close()


def test_a_worker_dead_before_its_manager_knows_is_given_nothing(story):
    worker = story.node.workers[0]
    os.close(worker.lane_in)
    worker.lane_in = os.open(os.devnull, os.O_WRONLY)
    story.listen()
    story.submit(0, 1)
    assert not worker.waits
    assert story.node.workers[1].waits


def test_what_cannot_be_written_goes_to_the_manager(story):
    worker = story.node.workers[0]
    fcntl.fcntl(worker.task_in, fcntl.F_SETPIPE_SZ, 4096)
    os.write(worker.task_in, bytes(100))  # the pipe is full
    story.submit(0, 1)
    assert story.script.to_managers[0][0] == Kind.TASKS or story.node.workers[1].waits
    assert len(worker.read() or b"") == 100


def test_what_was_read_back_is_not_lost_with_the_worker_that_it_was_given_to(story):
    story.submit(0, 1)
    story.die(0)  # task 1 goes to worker 1, which the script claims before it hears of that
    story.submit(0, 1)
    story.deliver_down(2)
    story.die(1)
    story.deliver_up(10)
    assert story.script.outcomes == {}
    assert sorted(story.node.core.held()) == [1, 2]


def test_what_was_read_back_is_the_managers_and_it_gets_a_worker_for_it():
    story = Story()
    story.begin(1)
    story.submit(0, 1)
    story.start(0)
    story.finish(0, False)
    story.submit(0, 1)
    story.killed.add(1)
    story.script.cancel([1], False, story.now)
    story.deliver_down(3)  # on the way to the cancelled task, which has ended, the next one was read back
    story.listen()
    story.teardown()
    assert story.script.outcomes == {1: Verdict.OK, 2: Verdict.OK}


def test_a_claim_under_way_does_not_bring_back_what_was_read_back(story):
    worker = story.node.workers[0]
    story.submit(0, 1)
    story.wait(TELL_AFTER_S)
    story.deliver_down(10)
    core = story.node.core
    core.took_back(0, story.node.taken_back(0, 1))
    core.claim(WorkerLease(0, worker.pid, True, (1,), 0.5), story.now)
    assert core.held() == [1]
    assert core.running() == {}
    story.node.act(story.now)
    story.deliver_up(10)
    story.deliver_down(10)
    assert core.held() == [1]
    assert not core.workers[0].moved


def test_lanes_of_a_manager_that_is_gone_are_closed(story):
    story.submit(0, 1)
    story.start(0)
    story.finish(0, False)
    story.script.channels.lost(PEER, story.now)
    story.script.core.disconnected(PEER, story.now)
    story.script.turn(story.now)
    assert story.script.outcomes[1] is Verdict.OK  # it had been written
    assert len(story.script.channels) == 0


def test_mode_of_draining_is_what_the_script_asked_for(story):
    story.submit(0, 1)
    story.start(0)
    story.drain()
    assert [message[0] for message in story.script.to_managers] == [Kind.CLAIM, Kind.CLAIM, Kind.DRAIN]
    assert unpack_drain(story.script.to_managers[-1]) is DrainMode.DRAIN
    story.deliver_down(10)
    assert not story.node.core.quiet
    story.finish(0, False)
    story.listen()
    story.deliver_down(10)
    assert story.node.core.quiet
