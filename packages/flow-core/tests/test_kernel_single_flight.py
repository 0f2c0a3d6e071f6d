"""Identical calls in flight."""

from __future__ import annotations

import threading
from pathlib import Path

from kernel_apps import Load

import flow_core as flow
from flow_core.errors import HookError
from flow_core.futures.callbacks import hook_calls, packing_calls
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoKey, Stored
from flow_core.memo.memoizer import BasicMemoizer
from flow_core.testing import MemoryExecutor


def test_identical_calls_in_flight_run_once_and_later_ones_not_at_all(load: Load) -> None:
    kernel = load(max_pending=None)
    runs: list[int] = []

    @flow.python_app(cache=True, ignore_for_cache=["gate", "log"])
    def slow(x: int, gate: threading.Event, log: list[int]) -> int:
        gate.wait(30)
        log.append(x)
        return x

    gate = threading.Event()
    futures = [slow(3, gate, runs) for _ in range(5)]
    assert {f.task_status() for f in futures} <= {"pending", "launched", "running"}
    gate.set()
    assert [f.result(10) for f in futures] == [3] * 5
    assert slow(3, gate, runs).task_status() == "memo_done"
    assert runs == [3]
    assert kernel.summary().memoized == 5


def test_each_of_identical_calls_in_flight_has_a_result_object_of_its_own(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_rows, cache=True)
    futures = [app(2) for _ in range(3)]
    executor.run_all()
    for future in futures:
        assert future.result(10) == [0, 1]
        future.result().append("the caller's")
    assert app(2).result(10) == [0, 1]


class Hanging(BasicMemoizer):
    """Hangs when one of its methods is called the second time."""

    def __init__(self, method: str, folder: Path) -> None:
        super().__init__(checkpoint_dir=folder)
        self._method, self._asked = method, 0
        self.reached, self.release = threading.Event(), threading.Event()

    def _hang(self, method: str) -> None:
        self._asked += method == self._method
        if method == self._method and self._asked == 2:
            self.reached.set()
            self.release.wait(30)

    def lookup(self, key: MemoKey) -> Stored | None:
        self._hang("lookup")
        return super().lookup(key)

    def key(self, app: AppIdentity, call: Call) -> MemoKey:
        self._hang("key")
        return super().key(app, call)


def _is_given_up(memoizer: Hanging, method: str, victim: flow.AppFuture[object]) -> None:
    assert memoizer.reached.wait(10)
    assert flow.python_app(_rows)(1).result(10) == [0]
    error = victim.exception(10)
    assert isinstance(error, HookError)
    assert f"memoizer Hanging.{method}() has not returned for 0.3 s (hook_timeout), in " in str(error)
    memoizer.release.set()
    assert hook_calls.drain(10)
    assert packing_calls.drain(10)
    assert victim.exception() is error


def test_a_memoizer_that_hangs_when_a_result_is_shared_holds_up_the_follower_alone(load: Load, tmp_path: Path) -> None:
    memoizer, gate = Hanging("lookup", tmp_path), threading.Event()
    load(memoizer=memoizer, hook_timeout=0.3)
    app = flow.python_app(lambda x: gate.wait(30) and x, cache=True)
    leader, follower = app(2), app(2)
    gate.set()
    _is_given_up(memoizer, "lookup", follower)
    assert leader.result(10) == 2


def test_a_memoizer_that_hangs_when_a_key_is_made_again_holds_up_its_task_alone(load: Load, tmp_path: Path) -> None:
    memoizer = Hanging("key", tmp_path)
    load(memoizer=memoizer, hook_timeout=0.3)
    _is_given_up(memoizer, "key", flow.python_app(len, cache=True)([{1: [2]}]))


def _rows(count: int) -> list[object]:
    return list(range(count))


def test_calls_share_a_result_that_cannot_be_copied(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_lock, cache=True)
    futures = [app() for _ in range(2)]
    executor.run_all()
    assert futures[0].result(10) is futures[1].result(10) is app().result(10)


def _lock() -> object:
    return threading.Lock()


def test_followers_share_a_failure_and_the_next_call_runs_again(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_fails, cache=True)
    futures = [app(1) for _ in range(3)]
    assert len(executor.waiting) == 1
    executor.run_all()
    assert {type(f.exception(10)) for f in futures} == {ValueError}
    app(1)
    assert len(executor.waiting) == 1


def _fails(x: int) -> None:
    raise ValueError(x)


def test_when_the_leader_is_cancelled_the_oldest_follower_leads(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_double, cache=True)
    leader, heir, other = (app(4) for _ in range(3))
    assert leader.cancel()
    assert len(executor.waiting) == 1
    executor.run_all()
    assert (heir.result(10), other.result(10)) == (8, 8)
    assert (heir.task_status(), other.task_status()) == ("exec_done", "memo_done")


def _double(x: int) -> int:
    return 2 * x
