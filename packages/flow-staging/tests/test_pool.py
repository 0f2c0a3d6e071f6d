"""The small thread pool of submit-side methods."""

from __future__ import annotations

import threading

import pytest

from flow_staging.transfer.pool import Job, TransferPool


@pytest.fixture
def pool():
    made = TransferPool(2, "test")
    yield made
    made.close()


def test_a_group_ends_when_all_its_jobs_have(pool):
    done = []
    pool.submit([Job("", lambda stop, n=n: done.append(n)) for n in range(20)]).result(10)
    assert sorted(done) == list(range(20))


def test_a_group_gives_what_its_jobs_learnt_in_their_order(pool):
    second = threading.Event()

    def first(_stop):
        assert second.wait(10)
        return "ab"

    def last(_stop):
        second.set()
        return "cd"

    assert pool.submit([Job("", first), Job("", lambda stop: None), Job("", last)]).result(10) == ["ab", "", "cd"]


def test_an_empty_group_is_done_at_once(pool):
    assert pool.submit([]).result(0) == []


def test_the_first_error_stops_the_others_and_is_the_result(pool):
    seen = threading.Event()

    def fail(_stop):
        seen.wait(10)
        raise ValueError("first")

    def wait(stop):
        seen.set()
        assert stop.wait(10)
        raise RuntimeError("stopped")

    with pytest.raises(ValueError, match="first"):
        pool.submit([Job("", wait), Job("", fail), Job("", lambda stop: None)]).result(20)


def test_jobs_of_one_key_run_one_after_the_other_in_order(pool):
    order, running, most = [], [], []

    def work(_stop, n):
        running.append(n)
        most.append(len(running))
        order.append(n)
        running.remove(n)

    futures = [pool.submit([Job("same", lambda stop, n=n: work(stop, n))]) for n in range(50)]
    for future in futures:
        future.result(10)
    assert order == list(range(50))
    assert max(most) == 1


def test_no_more_threads_than_allowed_and_none_before_they_are_needed():
    pool = TransferPool(3, "few")
    names = []
    barrier = threading.Barrier(3)

    def meet(_stop):
        barrier.wait(10)
        names.append(threading.current_thread().name)

    def mine():
        return [thread for thread in threading.enumerate() if thread.name == "flow-few"]

    assert mine() == []
    pool.submit([Job("", meet) for _ in range(9)]).result(20)
    assert len(mine()) == 3
    pool.close()
    assert mine() == []


def test_a_cancelled_group_does_not_start(pool):
    go = threading.Event()
    blocked = [pool.submit([Job("", lambda stop: go.wait(10))]) for _ in range(2)]
    ran = []
    later = pool.submit([Job("", lambda stop: ran.append(1))])
    assert later.cancel()
    go.set()
    for future in blocked:
        future.result(10)
    pool.submit([Job("", lambda stop: None)]).result(10)
    assert ran == []


def test_closing_stops_what_runs_and_settles_what_waits():
    pool = TransferPool(1, "closing")
    started = threading.Event()

    def stuck(stop):
        started.set()
        assert stop.wait(10)
        raise RuntimeError("stopped")

    def late(stop):
        assert stop.is_set()
        raise RuntimeError("stopped")

    first, second = pool.submit([Job("", stuck)]), pool.submit([Job("", late)])
    started.wait(10)
    pool.close()
    for future in (first, second):
        with pytest.raises(RuntimeError, match="stopped"):
            future.result(10)


def test_a_closed_pool_opens_again_for_a_second_run():
    pool = TransferPool(1, "again")
    for _ in range(3):
        assert pool.submit([Job("", lambda stop: None)]).result(10) == [""]
        pool.close()
