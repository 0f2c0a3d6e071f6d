"""A pool of threads that is full of tasks which do nothing is told of, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st
from kernel_apps import Load

import flow_core as flow
from flow_core.executors import full_pool
from flow_core.executors.full_pool import FullPool, Occupant, thread_cpu_s
from flow_core.executors.threads import ThreadPoolExecutor

SOON_S = 30.0


class Watched:
    """A pool by numbers, and a clock."""

    def __init__(self, threads: int = 2) -> None:
        self.now, self.threads = 0.0, threads
        self.cpu: dict[int, float] = {}
        self.full = FullPool("threads", 100.0, lambda: self.now, lambda native: self.cpu.get(native, 0.0))

    def look(self, keys: set[int], waiting: int = 1) -> str:
        occupants = {key: Occupant(f"task {key} (f)", 0, key) for key in keys}
        return self.full.look(occupants, waiting, self.threads)


def test_a_pool_full_of_idle_tasks_is_told_of_once_with_the_cure() -> None:
    pool = Watched()
    assert not pool.look({1, 2})
    pool.now = 99
    assert not pool.look({1, 2})
    pool.now = 100
    text = pool.look({1, 2}, 3)
    assert "No task of executor 'threads' has ended for 100 s: 3 tasks wait for a thread" in text
    assert "task 1 (f); task 2 (f)" in text
    assert "raise max_threads" in text
    assert "@join_app" in text
    pool.now = 1000
    assert not pool.look({1, 2}, 3)


def test_it_is_told_again_when_other_tasks_fill_it() -> None:
    pool = Watched(1)
    for key in (1, 2):
        pool.look({key})
        pool.now += 100
        assert pool.look({key})


@pytest.mark.parametrize(
    ("keys", "waiting"), [({1}, 1), ({1, 2}, 0), (set(), 5)], ids=["a free thread", "nobody waits", "nothing runs"]
)
def test_a_pool_that_is_not_full_is_none(keys: set[int], waiting: int) -> None:
    pool = Watched()
    for pool.now in (0, 100, 200, 300):
        assert not pool.look(keys, waiting)


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=30))
def test_it_is_told_only_when_no_task_has_ended_for_long(steps: list[tuple[int, bool]]) -> None:
    pool, key, since, told = Watched(1), 1, 0.0, False
    pool.look({key})
    for passed, ends in steps:
        pool.now += passed
        if ends:
            key, since, told = key + 1, pool.now, False
        due = pool.now - since >= 100 and not told
        assert bool(pool.look({key})) is due
        told = told or due


def test_a_pool_with_a_task_that_works_is_not_told_of() -> None:
    pool = Watched()
    for _ in range(10):
        assert not pool.look({1, 2})
        pool.now += 60
        pool.cpu[2] = pool.cpu.get(2, 0.0) + 5


def test_the_cpu_time_of_a_thread_is_its_own() -> None:
    begin, gate, end = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begin.wait(SOON_S)
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
        gate.set()
        end.wait(SOON_S)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert thread.native_id is not None
    assert (thread_cpu_s(thread.native_id) or 0) < 0.2
    begin.set()
    assert gate.wait(SOON_S)
    assert (thread_cpu_s(thread.native_id) or 0) >= 0.2
    end.set()
    thread.join(SOON_S)
    assert thread_cpu_s(1 << 30) is None


@flow.python_app
def _polls(inner: Callable[[], object]) -> object:
    future = inner()
    while not future.done():  # type: ignore[attr-defined]
        time.sleep(0.05)
    return future.result()  # type: ignore[attr-defined]


@flow.python_app
def _inner() -> int:
    return 1


def test_a_pool_whose_tasks_poll_for_tasks_behind_them_is_told_of(
    load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_pool, "_IDLE_SHARE", 1.0)  # the time that passes here is short
    executor = ThreadPoolExecutor("threads", max_threads=1)
    load(executor)
    future = _polls(_inner)
    pool = executor._pool
    assert pool is not None
    until = time.monotonic() + SOON_S
    while not pool.waiting:
        assert time.monotonic() < until
        time.sleep(0.01)
    pool._full = FullPool("threads", 0.2)
    executor.look()
    time.sleep(0.3)  # for this long it must have been so
    executor.look()
    (warning,) = [line for line in caplog.messages if "No task of executor" in line]
    assert "1 task waits for a thread" in warning
    assert "task 0 (_polls), in _polls (" in warning
    assert not future.done()
