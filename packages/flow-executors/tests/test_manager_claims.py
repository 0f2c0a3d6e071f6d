"""Workers to which the script gives tasks itself: what a manager does with them, and tells of them."""

from manager_world import SHORT_S, given_to, manager, tasks

from flow_executors.manager.manager_core import WorkerLoss
from flow_executors.wire.direct_messages import WorkerLease


def claim(rank, claimed, *keys, age_s=0.0):
    return WorkerLease(rank, 100 + rank, claimed, keys, age_s)


def test_a_claimed_worker_gets_nothing_until_it_is_given_back():
    core = manager()
    core.claim(claim(1, True), 0.0)
    core.accept(0, tasks(1, 2, 3))
    assert given_to(core.assign(0.0)) == {1: 0}
    assert not core.quiet
    core.claim(claim(1, False), 0.0)
    assert given_to(core.assign(0.0)) == {2: 1}
    assert core.claimed == []


def test_a_worker_given_back_with_a_task_gets_the_next_after_it():
    core = manager(slots=1)
    core.claim(claim(0, True), 0.0)
    core.claim(claim(0, False, 7), 0.0)
    core.accept(0, tasks(1))
    assert core.assign(0.0) == []
    assert core.held() == [1, 7]
    core.claim(claim(0, False), 0.0)
    assert given_to(core.assign(0.0)) == {1: 0}


def test_of_a_task_that_the_script_tells_of_all_is_known():
    core = manager(slots=1)
    core.claim(claim(0, True), 0.0)
    assert not core.busy
    core.claim(claim(0, True, 7, age_s=2.0), 10.0)
    assert core.busy
    assert core.starts(10.0, 1.0) == [(7, 0, 8.0)]
    core.cancel([7], kill=True)
    core.took_back(0, [])
    assert core.take_effects().kill == [0]
    assert core.worker_down(0, []) == WorkerLoss((7,), "cancel")


def test_what_the_script_gives_to_a_worker_that_was_given_something_just_now_is_read_back():
    core = manager(slots=2)
    core.accept(0, tasks(1))
    (assignment,) = core.assign(0.0)
    core.claim(claim(assignment.rank, True), 0.0)
    assert core.readbacks(0.0) == [(assignment.rank, 63)]
    core.took_back(assignment.rank, tasks(2))
    assert given_to(core.assign(0.0)) == {2: 1 - assignment.rank}
    assert core.readbacks(0.0) == []
    core.finished(assignment.rank, [1], SHORT_S, 0.0)
    assert [worker.rank for worker in core.claimed] == [assignment.rank]


def test_a_claim_of_a_worker_that_is_dead_is_none():
    core = manager(slots=1)
    core.worker_down(0, [])
    core.claim(claim(0, True), 0.0)
    core.worker_up(0, 999, 63, 0.0)
    core.claim(claim(0, True), 0.0)
    core.accept(0, tasks(1))
    assert given_to(core.assign(0.0)) == {1: 0}


def test_workers_are_replaced_of_which_only_the_script_knew_what_they_do_once_it_is_out_of_reach():
    core = manager(slots=3)
    core.claim(claim(1, True), 0.0)
    core.claim(claim(2, False, 7), 0.0)
    core.disown()
    assert sorted(core.take_effects().kill) == [1, 2]
    core.accept(0, tasks(1, 2))
    assert given_to(core.assign(0.0)) == {1: 0}


def test_what_was_read_back_of_the_scripts_tasks_is_told_and_a_claim_under_way_does_not_bring_it_back():
    core = manager(slots=2)
    core.claim(claim(0, True, 7), 0.0)
    core.took_back(0, tasks(7, 8))  # of 8 it had not heard
    assert core.take_effects().taken == [(0, 100, (7, 8))]
    assert given_to(core.assign(0.0)) == {7: 1}
    core.claim(claim(0, True, 7, 8), 0.0)
    assert sorted(core.held()) == [7, 8]
    assert core.running() == {101: 7}
    core.claim(claim(0, True), 0.0)  # the script knows
    core.finished(1, [7], SHORT_S, 0.0)
    core.claim(claim(0, True, 7), 0.0)  # and gives it anew, after it was returned
    assert core.running() == {100: 7}


def test_what_a_dead_worker_had_not_begun_is_told_unless_it_was_the_managers_own():
    core = manager(slots=1)
    core.accept(0, tasks(1))
    core.assign(0.0)
    core.claim(claim(0, False, 7), 0.0)
    assert core.worker_down(0, tasks(1, 7)) == WorkerLoss()
    assert core.take_taken() == [(0, 100, (7,))]
    assert core.take_taken() == []
    assert core.held() == [1, 7]
