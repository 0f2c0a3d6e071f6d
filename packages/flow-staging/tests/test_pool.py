"""The small thread pool of submit-side methods."""

from __future__ import annotations

import threading
import time

import pytest

from flow_staging.transfer.handle import Handle, current, tidying
from flow_staging.transfer.pool import TransferJob, TransferPool


@pytest.fixture
def pool():
    made = TransferPool(2, "test")
    yield made
    made.close()


def test_a_group_ends_when_all_its_jobs_have(pool):
    done = []
    pool.submit([TransferJob("", lambda stop, n=n: done.append(n)) for n in range(20)]).result(10)
    assert sorted(done) == list(range(20))


def test_a_group_gives_what_its_jobs_learnt_in_their_order(pool):
    second = threading.Event()

    def first(_stop):
        assert second.wait(10)
        return "ab"

    def last(_stop):
        second.set()
        return "cd"

    assert pool.submit([TransferJob("", first), TransferJob("", lambda stop: None), TransferJob("", last)]).result(
        10
    ) == ["ab", "", "cd"]


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
        pool.submit([TransferJob("", wait), TransferJob("", fail), TransferJob("", lambda stop: None)]).result(20)


def test_jobs_of_one_key_run_one_after_the_other_in_order(pool):
    order, running, most = [], [], []

    def work(_stop, n):
        running.append(n)
        most.append(len(running))
        order.append(n)
        running.remove(n)

    futures = [pool.submit([TransferJob("same", lambda stop, n=n: work(stop, n))]) for n in range(50)]
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
    pool.submit([TransferJob("", meet) for _ in range(9)]).result(20)
    assert len(mine()) == 3
    pool.close()
    assert mine() == []


def test_a_cancelled_group_does_not_start(pool):
    go = threading.Event()
    blocked = [pool.submit([TransferJob("", lambda stop: go.wait(10))]) for _ in range(2)]
    ran = []
    later = pool.submit([TransferJob("", lambda stop: ran.append(1))])
    assert later.cancel()
    go.set()
    for future in blocked:
        future.result(10)
    pool.submit([TransferJob("", lambda stop: None)]).result(10)
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

    first, second = pool.submit([TransferJob("", stuck)]), pool.submit([TransferJob("", late)])
    started.wait(10)
    pool.close()
    for future in (first, second):
        with pytest.raises(RuntimeError, match="stopped"):
            future.result(10)


def test_a_closed_pool_opens_again_for_a_second_run():
    pool = TransferPool(1, "again")
    for _ in range(3):
        assert pool.submit([TransferJob("", lambda stop: None)]).result(10) == [""]
        pool.close()


def stuck(begun):
    def run(handle):
        begun.release()
        assert handle.wait(20)
        raise RuntimeError("stopped")

    return run


def test_a_host_that_is_slow_holds_up_its_own_jobs_only():
    pool, begun = TransferPool(2, "hosts"), threading.Semaphore(0)
    slow = [pool.submit([TransferJob("", stuck(begun), "slow")]) for _ in range(10)]
    for _ in range(2):
        assert begun.acquire(timeout=20)
    for _ in range(20):
        assert pool.submit([TransferJob("", lambda handle: "quick", "quick")]).result(20) == ["quick"]
    assert not begun.acquire(blocking=False), "a third job of the slow host has begun"
    for future in slow:
        future.cancel()
    for future in slow:
        assert future.cancelled() or isinstance(future.exception(20), RuntimeError)
    pool.close()


def test_a_job_that_waits_for_its_next_try_holds_no_thread_of_others():
    pool, resting = TransferPool(1, "resting"), threading.Semaphore(0)
    go_on, order = threading.Event(), []

    def rests(handle):
        with handle.resting():
            resting.release()
            assert go_on.wait(20)
        order.append("back")
        return ""

    waiting = [pool.submit([TransferJob("", rests, "host")]) for _ in range(3)]
    for _ in range(3):
        assert resting.acquire(timeout=20)
    pool.submit([TransferJob("", lambda handle: order.append("other"), "host")]).result(20)
    go_on.set()
    for future in waiting:
        future.result(20)
    assert order == ["other", "back", "back", "back"]
    pool.close()


def test_what_comes_back_has_its_turn_before_what_waits():
    pool, resting = TransferPool(1, "back"), threading.Event()
    go_on, order = threading.Event(), []

    def rests(handle):
        with handle.resting():
            resting.set()
            assert go_on.wait(20)
        order.append("back")

    def next_one(handle):
        go_on.set()
        deadline = time.monotonic() + 20
        while not pool._queue._returning and time.monotonic() < deadline:  # until the other wants to come back
            time.sleep(0.001)
        order.append("next")

    first = pool.submit([TransferJob("", rests, "host")])
    assert resting.wait(20)
    later = pool.submit(
        [TransferJob("", next_one, "host"), *[TransferJob("", lambda handle: order.append("last"), "host")] * 5]
    )
    for future in (first, later):
        future.result(20)
    assert order[:2] == ["next", "back"]
    pool.close()


def test_cancelling_stops_what_runs_and_keeps_the_rest_from_starting():
    pool, begun, ran = TransferPool(1, "cancelled"), threading.Semaphore(0), []
    future = pool.submit([TransferJob("", stuck(begun)), TransferJob("", lambda handle: ran.append(1))])
    assert begun.acquire(timeout=20)
    future.cancel()
    with pytest.raises(RuntimeError, match="stopped"):
        future.result(20)
    assert ran == []
    pool.close()


def test_a_job_that_others_wait_for_is_stopped_with_the_last_of_them():
    pool, begun = TransferPool(4, "shared"), threading.Semaphore(0)
    first = pool.submit([TransferJob("key", stuck(begun))])
    assert begun.acquire(timeout=20)
    others = [pool.submit([TransferJob("key", stuck(begun))]) for _ in range(2)]
    first.cancel()
    others[0].cancel()
    assert not first.done()
    others[1].cancel()
    assert isinstance(first.exception(20), RuntimeError)
    assert all(future.cancelled() for future in others)
    assert not begun.acquire(blocking=False)
    pool.close()


def test_a_job_goes_on_for_those_who_wait_for_it():
    pool, begun, go_on, ran = TransferPool(4, "handed"), threading.Event(), threading.Event(), []

    def fetch(handle):
        begun.set()
        assert go_on.wait(20)
        ran.append(handle.is_set())
        return "digest"

    first = pool.submit([TransferJob("key", fetch)])
    assert begun.wait(20)
    second = pool.submit([TransferJob("key", fetch)])
    first.cancel()
    go_on.set()
    assert second.result(20) == ["digest"]
    assert ran == [False, False]
    pool.close()


def test_a_connection_is_cut_when_its_transfer_stops_and_never_after_it():
    handle, cut = Handle(), []
    with handle:
        assert current() is handle
        handle.cut_by(lambda: cut.append("first"))
        handle.set()
        handle.cut_by(lambda: cut.append("at once"))
        with tidying():
            assert current() is None
        assert current() is handle
    assert cut == ["first", "at once"]
    later = Handle()
    with later:
        later.cut_by(lambda: cut.append("never"))
    later.set()
    assert cut == ["first", "at once"]
    assert current() is None


def test_what_is_done_last_may_wait_for_what_a_job_on_another_host_has_begun(pool):
    """It has the turn of the job that ended last, and gives that one: the other job's has been given back."""
    second, handles = threading.Event(), []

    def first(handle):
        handles.append(handle)
        second.set()

    def other(_handle):
        assert second.wait(20)

    def last(_failed):
        with handles[0].resting():
            pool.submit([TransferJob("", lambda handle: "between", "other")]).result(20)

    for _ in range(20):
        second.clear()
        handles.clear()
        pool.submit([TransferJob("", first, "first"), TransferJob("", other, "other")], last=last).result(20)


def test_who_has_no_turn_gives_none_when_it_waits(pool):
    handles = []
    pool.submit([TransferJob("", handles.append, "host")]).result(20)
    with handles[0].resting():
        pool.submit([TransferJob("", lambda handle: "within", "host")]).result(20)
    pool.submit([TransferJob("", lambda handle: "after", "host")]).result(20)


def test_who_closes_the_pool_when_a_group_has_ended_stops_nothing_of_it():
    for _ in range(200):
        pool = TransferPool(2, "test")
        handles = []
        pool.submit([TransferJob("", handles.append) for _ in range(2)]).result(20)
        pool.close()
        assert not any(handle.is_set() for handle in handles)
