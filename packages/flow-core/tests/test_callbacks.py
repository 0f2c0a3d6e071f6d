"""Done-callbacks are the user's: whatever they do, they are run, in order, and hold up nothing but themselves."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future as StdFuture
from queue import SimpleQueue
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core.errors import KernelClosedError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures import callbacks
from flow_core.futures.callbacks import UserCalls, user_calls
from flow_core.futures.data_future import DataFuture
from flow_core.futures.lean import Future, in_callback, when_done
from flow_core.testing import MemoryExecutor


def raising(error: BaseException) -> Callable[[Any], None]:
    def callback(_: Any) -> None:
        raise error

    return callback


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), ValueError("odd")])
def test_whatever_a_callback_raises_is_logged_and_stops_nothing(
    load: Load, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    load()
    release = threading.Event()
    held = flow.python_app(lambda: release.wait(10))()
    held.add_done_callback(raising(error))
    release.set()
    assert held.result(10)
    assert user_calls.drain(10)
    assert [add(n).result(10) for n in range(5)] == [1, 2, 3, 4, 5]
    assert type(error).__name__ in caplog.text
    assert "the callback raising.<locals>.callback of <AppFuture" in caplog.text


def test_a_callback_of_a_done_future_runs_at_once_and_cannot_raise() -> None:
    future: Future[int] = Future()
    future.set_result(1)
    seen: list[int] = []
    future.add_done_callback(raising(SystemExit(1)))
    future.add_done_callback(lambda _: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()]


def test_a_callback_that_waits_for_another_task_holds_up_nobody(load: Load) -> None:
    load()
    first, second, got = threading.Event(), threading.Event(), StdFuture[bool]()
    one = flow.python_app(lambda: first.wait(10))()
    other = flow.python_app(lambda: second.wait(10))()
    one.add_done_callback(lambda _: got.set_result(other.result(10)))
    first.set()
    assert one.result(10)
    assert add(1).result(10) == 2
    second.set()
    assert got.result(10)


def test_callbacks_behind_one_that_blocks_are_called_and_in_order() -> None:
    calls = UserCalls()
    release, seen, last = threading.Event(), list[int](), threading.Event()
    calls.soon(lambda _: release.wait(20), None, lambda *_: "the first")
    for number in range(100):
        calls.soon(seen.append, number, lambda *_: "one")
    calls.soon(lambda _: last.set(), None, lambda *_: "the last")
    assert last.wait(10)
    assert seen == list(range(100))
    release.set()
    assert calls.drain(10)


def test_a_callback_that_does_not_return_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_ALONE_S", 0.02)
    monkeypatch.setattr(callbacks, "_TOLD_S", 0.05)
    release, told = threading.Event(), SimpleQueue[str]()
    handler = logging.Handler()
    handler.emit = lambda record: told.put(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("flow.futures").addHandler(handler)
    try:
        future: Future[int] = Future()
        future.add_done_callback(lambda _: release.wait(20))
        future.set_result(1)
        assert "<lambda> of <Future" in told.get(timeout=10)
    finally:
        release.set()
        logging.getLogger("flow.futures").removeHandler(handler)


def test_draining_does_not_wait_for_what_never_ends_nor_for_the_caller() -> None:
    calls = UserCalls()
    assert calls.drain(0.0)
    release, drained = threading.Event(), StdFuture[bool]()
    calls.soon(lambda _: drained.set_result(calls.drain(10)), None, lambda *_: "drains")
    assert drained.result(15)
    calls.soon(lambda _: release.wait(30), None, lambda *_: "waits")
    assert not calls.drain(0.1)
    release.set()
    assert calls.drain(10)


def test_callbacks_of_flow_itself_run_where_the_future_is_settled() -> None:
    parent: Future[dict[str, int]] = Future()
    made = DataFuture(parent, "somewhere")
    where: list[int] = []
    when_done(made, lambda _: where.append(threading.get_ident()))
    parent.set_result({})
    assert made.done()
    assert where == [threading.get_ident()]


def test_a_callback_knows_that_it_is_one() -> None:
    future: Future[int] = Future()
    known = StdFuture[bool]()
    future.add_done_callback(lambda _: known.set_result(in_callback()))
    future.set_result(1)
    assert known.result(10)
    assert not in_callback()


def test_asyncio_is_told_without_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_calls, "soon", lambda *_: pytest.fail("it went by the thread of the users' callbacks"))

    async def main() -> int:
        future: Future[int] = Future()
        threading.Timer(0.01, future.set_result, (3,)).start()
        return await future

    assert asyncio.run(main()) == 3


def test_an_idle_thread_holds_no_future() -> None:
    future: Future[object] = Future()
    gone = weakref.ref(future)
    future.add_done_callback(lambda _: None)
    future.set_result(object())
    assert user_calls.drain(10)
    del future
    gc.collect()
    assert gone() is None


def test_the_end_of_a_run_waits_for_its_callbacks(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    release, began, ended = threading.Event(), threading.Event(), list[str]()

    def callback(_: Any) -> None:
        began.set()
        release.wait(20)
        ended.append("callback")

    add(1).add_done_callback(callback)
    executor.run_all()
    assert began.wait(20)
    closing = threading.Thread(target=kernel.cleanup)
    closing.start()
    release.set()
    closing.join(20)
    assert ended == ["callback"]


def test_a_callback_may_end_the_run(load: Load) -> None:
    kernel = load()
    cleared = threading.Event()
    release = threading.Event()

    def callback(_: Any) -> None:
        kernel.cleanup()
        cleared.set()

    held = flow.python_app(lambda: release.wait(10))()
    held.add_done_callback(callback)
    release.set()
    assert cleared.wait(20)
    with pytest.raises(KernelClosedError):
        add(1)


def test_exits_in_a_callback_do_not_end_a_worker_thread(load: Load) -> None:
    load(ThreadPoolExecutor(max_threads=1))
    for _ in range(3):
        release = threading.Event()
        held = flow.python_app(lambda release=release: release.wait(10))()
        held.add_done_callback(lambda _: sys.exit(1))
        release.set()
        assert held.result(10)
    assert add(1).result(10) == 2
