"""The client's queues: every task is kept until its outcome, in order, never more out than the window."""

from __future__ import annotations

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_executors.client.interchange_process import RecoveryDecision, RestartReconciliation
from flow_executors.client.submission import TaskQueues, class_of_record
from flow_executors.wire.tasks import pack_record, unpack_tasks

DIGEST = b"d" * 16
URGENT = TaskSpec(priority=1)


def record(key: int, class_id: int = 0) -> bytes:
    return pack_record(DIGEST, key, class_id, b"payload")


def keys_of(queues: TaskQueues) -> list[int]:
    return [key for batch in queues.take() for key in unpack_tasks(batch.message).keys]


def test_tasks_leave_in_the_order_in_which_they_came() -> None:
    queues = TaskQueues()
    for key in (5, 3, 9):
        queues.add(0, key, record(key))
    assert keys_of(queues) == [5, 3, 9]
    assert keys_of(queues) == []


def test_the_window_bounds_what_is_out_in_each_class() -> None:
    queues = TaskQueues()
    queues.window = 2
    urgent = queues.new_class(URGENT)
    for key in range(3):
        queues.add(0, key, record(key))
        queues.add(urgent, key + 10, record(key + 10, urgent))
    assert keys_of(queues) == [0, 1, 10, 11]
    assert queues.blocked(0)
    queues.finish([1, 10, 99])
    assert not queues.blocked(0)
    assert keys_of(queues) == [2, 12]


def test_a_class_has_one_number_and_the_default_one_is_0() -> None:
    queues = TaskQueues()
    assert queues.class_of(DEFAULT_SPEC) == queues.class_of(TaskSpec()) == 0
    assert queues.class_of(URGENT) is None
    assert queues.new_class(URGENT) == queues.new_class(TaskSpec(priority=1)) == 1
    assert queues.specs == {1: URGENT}
    assert class_of_record(record(7, 1)) == 1


def test_what_is_withdrawn_is_not_sent_and_what_was_sent_is_not_withdrawn() -> None:
    queues = TaskQueues()
    for key in range(3):
        queues.add(0, key, record(key))
    assert queues.withdraw([1, 77]) == [1]
    assert keys_of(queues) == [0, 2]
    assert queues.withdraw([0]) == []
    assert queues.sent() == {0, 2}


def test_what_never_arrived_is_sent_again_first() -> None:
    queues = TaskQueues()
    for key in range(4):
        queues.add(0, key, record(key))
    keys_of(queues)
    queues.add(0, 9, record(9))
    queues.send_again([2, 1, 55])
    assert keys_of(queues) == [1, 2, 9]


def test_a_late_result_of_a_task_to_be_sent_again_counts() -> None:
    queues = TaskQueues()
    queues.add(0, 1, record(1))
    keys_of(queues)
    queues.send_again([1])
    queues.finish([1])
    assert keys_of(queues) == []
    assert queues.records == {}


def test_clearing_tells_the_sent_from_the_unsent() -> None:
    queues = TaskQueues()
    queues.add(0, 1, record(1))
    keys_of(queues)
    queues.add(0, 2, record(2))
    assert queues.clear() == ([2], [1])
    assert not queues.sendable


def test_unclaimed_tasks_are_sent_again_once_all_managers_are_back() -> None:
    reclaim = RestartReconciliation(["a", "b"], [1, 2, 3], 10.0)
    reclaim.registered("a", [1])
    assert reclaim.decision(5.0) is None
    reclaim.finished([2])
    reclaim.registered("b", [])
    assert reclaim.decision(5.0) is RecoveryDecision.AGAIN
    assert reclaim.unclaimed == {3}


def test_unclaimed_tasks_are_lost_when_a_manager_does_not_come_back_in_time() -> None:
    reclaim = RestartReconciliation(["a"], [1], 10.0)
    assert reclaim.decision(9.9) is None
    assert reclaim.decision(10.0) is RecoveryDecision.LOST


class QueueMachine(RuleBasedStateMachine):
    """Any order of adding, sending, finishing, withdrawing and sending again."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = TaskQueues()
        self.queues.window = 5
        self.urgent = self.queues.new_class(URGENT)
        self.next = 0
        self.unsent: set[int] = set()
        self.out: set[int] = set()

    @rule(urgent=st.booleans())
    def add(self, urgent: bool) -> None:
        class_id = self.urgent if urgent else 0
        self.queues.add(class_id, self.next, record(self.next, class_id))
        self.unsent.add(self.next)
        self.next += 1

    @rule()
    def send(self) -> None:
        sent = keys_of(self.queues)
        assert len(sent) == len(set(sent))
        assert self.unsent.issuperset(sent)
        self.unsent.difference_update(sent)
        self.out.update(sent)

    @rule(data=st.data(), what=st.sampled_from(["finish", "withdraw", "again"]))
    def change(self, data: st.DataObject, what: str) -> None:
        keys = data.draw(st.lists(st.integers(0, max(0, self.next - 1)), max_size=5, unique=True))
        if what == "finish":
            done = [key for key in keys if key in self.out]
            self.queues.finish(done)
            self.out.difference_update(done)
        elif what == "withdraw":
            withdrawn = self.queues.withdraw(keys)
            assert set(withdrawn) == self.unsent & set(keys)
            self.unsent.difference_update(withdrawn)
        else:
            again = [key for key in keys if key in self.out]
            self.queues.send_again(again)
            self.out.difference_update(again)
            self.unsent.update(again)

    @invariant()
    def every_task_is_known_and_the_windows_hold(self) -> None:
        assert self.queues.records.keys() == self.unsent | self.out
        assert self.queues.unsent == self.unsent
        for class_id in (0, self.urgent):
            out = [key for key in self.out if class_of_record(self.queues.records[key]) == class_id]
            assert len(out) <= 5
            assert self.queues.blocked(class_id) == (len(out) >= 5)


QueueMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestQueues = QueueMachine.TestCase
