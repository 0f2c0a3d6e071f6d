from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import NotFutureError
from flow_core.files import File
from flow_core.futures.app_future import AppFuture
from flow_core.futures.data_future import DataFuture


@dataclass
class Point:
    x: int
    parts: dict[str, list[int]]


def test_items_and_attributes_are_futures_at_once() -> None:
    future: AppFuture[Any] = AppFuture(0)
    x, deep = future.x, future.parts["a"][1]
    assert not x.done()
    future.set_result(Point(3, {"a": [1, 2]}))
    assert x.result(10) == 3
    assert deep.result(10) == 2


def test_a_missing_part_is_the_error_of_looking_it_up() -> None:
    future: AppFuture[Any] = AppFuture(0)
    missing, wrong = future["k"], future.nothing
    future.set_result({})
    assert isinstance(missing.exception(10), KeyError)
    assert isinstance(wrong.exception(10), AttributeError)


def test_parts_fail_and_are_cancelled_as_the_whole() -> None:
    future: AppFuture[Any] = AppFuture(0)
    error = ValueError()
    part = future[0]
    future.set_exception(error)
    assert part.exception(10) is error
    other: AppFuture[Any] = AppFuture(1)
    part = other[0]
    super(AppFuture, other).cancel()
    assert part.cancelled()


def test_parts_of_parts_to_any_depth_do_not_recurse() -> None:
    future: AppFuture[Any] = AppFuture(0)
    nested: Any = "core"
    part: Any = future
    for _ in range(5_000):
        nested = [nested]
        part = part[0]
    future.set_result(nested)
    assert part.result(10) == "core"
    while isinstance(nested, list):  # taken apart by hand: freeing it at once would recurse in C
        nested = nested[0]


def test_only_public_names_are_parts() -> None:
    future: AppFuture[Any] = AppFuture(0)
    assert not hasattr(future, "_private")
    assert not hasattr(future, "__array__")
    with pytest.raises(TypeError):
        iter(future)  # type: ignore[call-overload]  # the point of the test
    with pytest.raises(TypeError):
        _ = 3 in future  # type: ignore[operator]  # the point of the test


def test_a_repr_tells_the_task_and_the_part() -> None:
    future: AppFuture[Any] = AppFuture(7)
    assert "tid=7" in repr(future)
    assert "state=pending" in repr(future)
    assert ".name" in repr(future.name)


def test_a_data_future_ends_with_its_parent() -> None:
    parent: concurrent.futures.Future[int] = concurrent.futures.Future()
    future = DataFuture(parent, "/tmp/x.txt", tid=4)
    assert (future.tid, future.filename, future.filepath) == (4, "x.txt", "/tmp/x.txt")
    parent.set_result(0)
    assert future.result(10) == File("/tmp/x.txt")


def test_a_data_future_fails_with_its_parent() -> None:
    parent: concurrent.futures.Future[int] = concurrent.futures.Future()
    future = DataFuture(parent, File("/tmp/x.txt"))
    error = ValueError()
    parent.set_exception(error)
    assert future.exception(10) is error


def test_a_data_future_needs_a_future() -> None:
    with pytest.raises(NotFutureError):
        DataFuture("no future", "/tmp/x")  # type: ignore[arg-type]  # the point of the test


def test_a_data_future_without_a_parent_has_a_repr(tmp_path: Path) -> None:
    future = DataFuture(None, str(tmp_path / "f"))
    assert "pending" in repr(future)
    assert future.cancel()
