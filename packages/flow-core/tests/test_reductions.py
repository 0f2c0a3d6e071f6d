"""Objects are asked once how they are made anew, for the key of a cached call and for what is sent together."""

from __future__ import annotations

import concurrent.futures
import pickle
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from kernel_apps import Load

import flow_core as flow
from flow_core.remote import bringing
from flow_core.remote.callables import pickled_by_name
from flow_core.remote.reductions import Given, Recording, known, record

_EVENT = "flow.tests.asked"
_told: queue.SimpleQueue[object] = queue.SimpleQueue()


def _hear(event: str, _given: object) -> None:
    if event == _EVENT:
        _told.put(event)


sys.addaudithook(_hear)  # of Python's own: nothing that a class names, and so nothing that counts in keys, changes


class Reduces:
    """Counts how often it is asked."""

    def __init__(self, x: object) -> None:
        self.x = x

    def __reduce__(self) -> tuple[type, tuple[object]]:
        sys.audit("flow.tests.asked")
        return Reduces, (self.x,)


class HasState:
    """The same by another method."""

    def __init__(self, x: object) -> None:
        self.x = x

    def __getstate__(self) -> dict[str, object]:
        sys.audit("flow.tests.asked")
        return {"x": self.x}


class Inner(Reduces):
    """Lies in another one."""


class SamePool(concurrent.futures.Executor):
    """A pool that is sent bytes, and runs them here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_running_or_notify_cancel()
        threading.Thread(target=lambda: done.set_result(fn(*args, **kwargs)), daemon=True).start()
        return done


@pytest.fixture
def asked() -> Callable[[], int]:
    """Give a function that says how often objects were asked."""
    while not _told.empty():
        _told.get()
    return _told.qsize


Asked = Callable[[], int]


def x_of(one: Any) -> object:
    return one[0].x if type(one) is list else one.x


def local_class() -> type:
    class Local(Reduces):
        def __reduce__(self) -> Any:
            sys.audit("flow.tests.asked")
            return type(self), (self.x,)

    return Local


@pytest.mark.parametrize(
    "make",
    [Reduces, HasState, lambda x: [Reduces(x)], lambda x: local_class()(x)],
    ids=["reduce", "getstate", "nested", "by value"],
)
def test_an_argument_of_a_cached_call_is_asked_once(make: Callable[[int], Any], load: Load, asked: Asked) -> None:
    load(SamePool())
    assert flow.python_app(x_of, cache=True)(make(3)).result(30) == 3
    assert asked() == 1


def test_each_object_in_a_tree_is_asked_once(load: Load, asked: Asked) -> None:
    load(SamePool())
    assert flow.python_app(lambda one: one.x[0].x, cache=True)(Reduces([Inner(4)])).result(30) == 4
    assert asked() == 2


def test_a_further_try_asks_once_more_and_its_result_is_remembered(load: Load, asked: Asked) -> None:
    tries: list[object] = []

    class Failing(SamePool):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            tries.append(asked())
            if len(tries) > 1:
                return super().submit(fn, *args, **kwargs)
            failed: Future[Any] = Future()
            failed.set_exception(ValueError("the first one fails"))
            return failed

    load(Failing(), retries=1)
    app = flow.python_app(x_of, cache=True)
    assert app(Reduces(3)).result(30) == 3
    assert tries == [1, 2]
    again = app(Reduces(3))
    assert again.result(30) == 3
    assert again.task_status() == "memo_done"


def test_an_argument_of_a_cached_call_in_threads_is_asked_for_the_key_and_at_the_end(load: Load, asked: Asked) -> None:
    load()
    app = flow.python_app(x_of, cache=True)
    assert app(Reduces(3)).result(30) == 3
    assert asked() == 2
    again = app(Reduces(3))
    assert again.result(30) == 3
    assert again.task_status() == "memo_done"
    assert asked() == 3


def test_an_object_that_changes_in_place_while_its_task_runs_in_threads_is_seen(load: Load, asked: Asked) -> None:
    def grown(one: Any) -> object:
        one.x += 1
        return one.x

    load()
    app = flow.python_app(grown, cache=True)
    assert app(Reduces(3)).result(30) == 4
    again = app(Reduces(3))
    assert again.result(30) == 4
    assert again.task_status() == "exec_done"


def test_what_a_container_has_lost_between_key_and_sending_is_seen(load: Load, asked: Asked) -> None:
    content = [1]
    one = Reduces(content)

    class Changing(SamePool):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            content.append(2)
            return super().submit(fn, *args, **kwargs)

    load(Changing())
    app = flow.python_app(x_of, cache=True)
    app(one).result(30)
    content[:] = [1]
    again = app(one)
    assert again.result(30)
    assert again.task_status() == "exec_done"


def test_what_is_recorded_is_what_pickle_writes(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests of this process may have made modules known that go by value; their names may be in any pickle.
    monkeypatch.setattr("flow_core.remote.callables.needs_care", lambda _data: False)
    one = Reduces([5])
    with Recording() as said:
        record(one, one.__reduce_ex__(4))
    with Given(said):
        by_name, with_code = pickled_by_name((one,)), bringing.pickled_with_code((one,))
    assert asked() == 1
    assert by_name is not None
    assert pickle.loads(by_name)[0].x == pickle.loads(with_code)[0].x == [5]
    assert known(one) is None


def test_iterators_are_not_recorded_since_the_key_has_read_them() -> None:
    class Items(Reduces):
        def __reduce__(self) -> Any:
            return Reduces, (1,), None, iter([1])

    one = Items(1)
    with Recording() as said:
        record(one, one.__reduce_ex__(4))
    assert not said
