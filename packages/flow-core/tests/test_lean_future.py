from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import pickle
import threading
from concurrent.futures import CancelledError, InvalidStateError
from typing import Any

import pytest

from flow_core.futures.callbacks import user_calls
from flow_core.futures.lean import CANCELLATION, Future, settle


def later(action: Any, *args: Any) -> None:
    threading.Timer(0.02, action, args).start()


def test_a_result_set_by_another_thread_wakes_who_waits() -> None:
    future: Future[int] = Future()
    later(future.set_result, 3)
    assert future.result(timeout=10) == 3
    assert future.done()
    assert not future.running()


def test_an_exception_is_raised_and_told() -> None:
    future: Future[int] = Future()
    future.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        future.result()
    assert isinstance(future.exception(), ValueError)


def test_waiting_too_long_is_a_timeout_and_leaves_no_trace() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.001)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    assert future._parked == []


def test_a_cancelled_future_raises_for_everybody() -> None:
    future: Future[int] = Future()
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result()
    with pytest.raises(CancelledError):
        future.exception()


def test_a_future_that_is_done_cannot_be_cancelled_or_set_again() -> None:
    future: Future[int] = Future()
    future.set_result(1)
    assert not future.cancel()
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1


def test_callbacks_run_in_order_and_at_once_when_done(caplog: pytest.LogCaptureFixture) -> None:
    future: Future[int] = Future()
    seen: list[str] = []
    future.add_done_callback(lambda _: seen.append("first"))
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: seen.append("second"))
    future.set_result(1)
    assert user_calls.drain(10)
    future.add_done_callback(lambda f: seen.append(f"late {f.result()}"))
    assert seen == ["first", "second", "late 1"]
    assert "ZeroDivisionError" in caplog.text


def test_callbacks_that_settle_others_do_not_recurse() -> None:
    futures: list[Future[int]] = [Future() for _ in range(20_000)]
    for one, following in itertools.pairwise(futures):
        one.add_done_callback(lambda _, following=following: following.set_result(1))  # type: ignore[misc]
    futures[0].set_result(1)
    assert futures[-1].result(timeout=10) == 1


@pytest.mark.parametrize("how", ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
def test_concurrent_futures_wait_sees_it(how: str) -> None:
    done: Future[int] = Future()
    done.set_result(0)
    late: Future[int] = Future()
    if how != "FIRST_COMPLETED":
        later(late.set_exception, ValueError())
    result = concurrent.futures.wait([done, late], timeout=10, return_when=how)
    assert done in result.done
    assert (late in result.done) == (how != "FIRST_COMPLETED")
    late.cancel()


def test_as_completed_gives_lean_and_other_futures_alike() -> None:
    lean: list[Future[int]] = [Future() for _ in range(5)]
    plain: concurrent.futures.Future[int] = concurrent.futures.Future()
    later(settle, [(future, index, None) for index, future in enumerate(lean)])
    later(plain.set_result, 9)
    got = [future.result() for future in concurrent.futures.as_completed([*lean, plain], timeout=10)]
    assert sorted(got) == [0, 1, 2, 3, 4, 9]


def test_a_cancelled_one_wakes_wait() -> None:
    future: Future[int] = Future()
    later(future.cancel)
    assert concurrent.futures.wait([future], timeout=10).done == {future}


def test_it_can_be_awaited() -> None:
    async def main() -> int:
        future: Future[int] = Future()
        later(future.set_result, 4)
        return await future + await asyncio.wrap_future(future)

    assert asyncio.run(main()) == 8


def test_a_batch_is_settled_at_once_and_counts_what_was_not_done() -> None:
    futures: list[Future[Any]] = [Future() for _ in range(4)]
    futures[0].set_result("before")
    error = ValueError()
    assert settle([(futures[0], 1, None), (futures[1], 2, None), (futures[2], None, error)]) == 2
    assert settle([(futures[3], None, CANCELLATION)]) == 1
    assert futures[0].result() == "before"
    assert futures[1].result() == 2
    assert futures[2].exception() is error
    assert futures[3].cancelled()


def test_an_app_that_raises_cancelled_error_has_failed_not_been_cancelled() -> None:
    future: Future[int] = Future()
    future.set_exception(CancelledError())
    assert not future.cancelled()
    assert isinstance(future.exception(), CancelledError)


def test_many_threads_wait_for_one_future() -> None:
    future: Future[int] = Future()
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(future.result(10))) for _ in range(20)]
    for thread in threads:
        thread.start()
    future.set_result(7)
    for thread in threads:
        thread.join(10)
    assert got == [7] * 20


def test_a_future_races_with_those_who_begin_to_watch_it() -> None:
    for _ in range(300):
        future: Future[int] = Future()
        thread = threading.Thread(target=future.set_result, args=(1,))
        thread.start()
        assert concurrent.futures.wait([future], timeout=10).not_done == set()
        thread.join()


def test_pickling_says_what_to_do_instead() -> None:
    with pytest.raises(TypeError, match="inputs="):
        pickle.dumps(Future())


def test_its_repr_tells_its_state() -> None:
    future: Future[int] = Future()
    assert "state=pending" in repr(future)
    future.set_result(3)
    assert "returned int" in repr(future)
