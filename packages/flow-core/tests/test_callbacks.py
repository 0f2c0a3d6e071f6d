"""Done-callbacks are the user's: whatever they do, they are run, in order, and hold up nothing but themselves."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
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
from flow_core.futures.callbacks import Limit, UserCalls, user_calls
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
    deadline = time.monotonic() + 10
    while not caplog.text and time.monotonic() < deadline:  # a result wakes others before callbacks are called
        threading.Event().wait(0.005)
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


def test_who_waits_for_a_call_is_told_once_that_it_has_taken_too_long_and_where_it_is() -> None:
    calls, told = UserCalls(), SimpleQueue[tuple[str, str]]()
    release = threading.Event()
    calls.soon(lambda _: release.wait(20), None, lambda *_: "the hook", Limit(0.05, lambda *given: told.put(given)))
    calls.soon(lambda _: None, None, lambda *_: "another", Limit(0.05, lambda *given: told.put(given)))
    hook, text = told.get(timeout=10)
    assert hook == "the hook"
    assert text.startswith("the hook has not returned for 0.05 s (hook_timeout), in ")
    assert "test_callbacks.py" in text
    release.set()
    assert calls.drain(10)
    assert told.empty()


def test_one_who_cannot_bear_to_be_told_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    calls, told, release = UserCalls(), SimpleQueue[tuple[str, str]](), threading.Event()

    def passed(*_given: str) -> None:
        raise SystemExit(3)

    calls.soon(lambda _: release.wait(20), None, lambda *_: "the first", Limit(0.05, passed))
    calls.soon(lambda _: release.wait(20), None, lambda *_: "the second", Limit(0.05, lambda *given: told.put(given)))
    assert told.get(timeout=10)[0] == "the second"
    assert "Giving up the first raised SystemExit: 3" in caplog.text
    release.set()
    assert calls.drain(10)


def test_calls_behind_as_many_that_do_not_return_as_there_may_be_threads_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks, "_ALONE_S", 0.05)
    monkeypatch.setattr(callbacks, "_MOST", 2)
    calls, told, release = UserCalls(), SimpleQueue[str](), threading.Event()
    unlimited = threading.Event()
    for number in range(3):
        limit = Limit(0.2, lambda _hook, text: told.put(text))
        calls.soon(lambda _: release.wait(20), None, lambda *_, n=number: f"hook {n}", limit)
    calls.soon(lambda _: unlimited.set(), None, lambda *_: "one that nobody waits for")
    calls.soon(lambda _: None, None, lambda *_: "hook 3", Limit(0.2, lambda _hook, text: told.put(text)))
    given = [told.get(timeout=10) for _ in range(4)]
    assert [text.partition(" has not")[0] for text in given[:3]] == ["hook 0", "hook 1", "hook 2"]
    assert given[3] == "hook 3 cannot be called, since 3 calls before it have not returned"
    assert not unlimited.is_set()
    release.set()
    assert unlimited.wait(10)


class _Hangs:
    """What hangs when it is asked for something."""

    release = threading.Event()

    def hang(self, *_args: object) -> Any:
        self.release.wait(30)
        return iter(())


class HangsIterated(_Hangs, list[object]):
    __iter__ = _Hangs.hang


class HangsRead(_Hangs, dict[str, object]):
    values = _Hangs.hang  # type: ignore[assignment]  # the point


class HangsAsked(_Hangs):
    __class__ = property(_Hangs.hang)  # type: ignore[assignment]  # the point


def test_a_value_that_does_not_say_what_class_it_is_holds_up_neither_its_call_nor_what_depends_on_it(
    load: Load,
) -> None:
    load()
    HangsAsked.release.clear()
    try:
        given = flow.python_app(lambda value: value)(HangsAsked())
        assert flow.python_app(lambda value: type(value).__name__)(given).result(10) == "HangsAsked"
        assert add(1).result(10) == 2
    finally:
        HangsAsked.release.set()


class HangsPacked(_Hangs):
    def __reduce__(self) -> Any:
        self.hang()
        return HangsPacked, ()


@pytest.mark.parametrize("kind", [HangsIterated, HangsRead, HangsPacked])
def test_an_argument_that_hangs_in_the_callers_own_call_is_named_with_its_task_and_keeps_nobody_else(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[_Hangs]
) -> None:
    monkeypatch.setattr(callbacks, "_TOLD_S", 0.3)
    load()
    kind.release.clear()
    app = flow.python_app(lambda given: type(given).__name__, cache=kind is HangsPacked)
    got: SimpleQueue[Any] = SimpleQueue()
    caller = threading.Thread(target=lambda: got.put(app(kind())), daemon=True)
    caller.start()
    deadline = time.monotonic() + 10
    while not any("has not returned for 0.3 s" in line for line in caplog.messages):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert add(1).result(10) == 2
    kind.release.set()
    assert got.get(timeout=10).result(10) == kind.__name__
    (told,) = [line for line in caplog.messages if "has not returned for 0.3 s" in line]
    what = "the key for the arguments" if kind is HangsPacked else "the search for futures in argument 'given'"
    assert told.startswith(f"{what} of task 0 (<lambda>) has not returned for 0.3 s, in ")
    assert "_Hangs.hang (" in told


def test_what_a_function_names_and_hangs_when_it_is_looked_at_is_named(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(callbacks, "_TOLD_S", 0.3)
    load()
    HangsPacked.release.clear()
    held = HangsPacked()
    app = flow.python_app(lambda: held is not None, cache=True)
    caller = threading.Thread(target=app, daemon=True)
    caller.start()
    deadline = time.monotonic() + 10
    while not any("the look at what the function of task 0" in line for line in caplog.messages):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    HangsPacked.release.set()
    caller.join(10)
    assert not caller.is_alive()


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
