from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_core.executors.futures import FuturesExecutor, SubmitExecutor
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.remote.bash import BashStep
from flow_core.testing import ExecutorContract, RecordingListener, calls, make_context


def make_threads() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(2)


def make_processes() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


class TestOverThreads(ExecutorContract):
    def make_executor(self) -> FuturesExecutor:
        return FuturesExecutor("pool", make_threads)


class TestOverProcesses(ExecutorContract):
    isolates_tasks = True
    survives_exit = False

    def make_executor(self) -> FuturesExecutor:
        return FuturesExecutor("processes", make_processes)


class SeedsStyle:
    """An executor as users of the field write them."""

    honours = frozenset[str]()  # it is told, and does nothing about it

    def __init__(self) -> None:
        self.label = "seeds"
        self.asked: list[dict[str, object]] = []
        self.max_workers = 2
        self._pool: concurrent.futures.Executor | None = None

    def start(self) -> None:
        self._pool = make_threads()

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, object], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        assert self._pool is not None
        self.asked.append(resource_specification)
        return self._pool.submit(func, *args, **kwargs)

    def shutdown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class TestSeedsStyle(ExecutorContract):
    isolates_tasks = False

    def make_executor(self) -> SubmitExecutor:
        return SubmitExecutor(SeedsStyle())


@pytest.fixture
def listener() -> Iterator[RecordingListener]:
    listener = RecordingListener()
    yield listener
    assert listener.breaches == []


def test_a_resource_specification_is_handed_on(tmp_path: Path, listener: RecordingListener) -> None:
    seeds = SeedsStyle()
    executor = SubmitExecutor(seeds)
    executor.start(make_context(tmp_path, listener, label="seeds"))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    assert listener.wait_for([TryKey(1)], 10)[0].value == 4
    assert seeds.asked[0]["cores"] == 1.0
    executor.shutdown(5)


def test_a_shutdown_of_the_users_that_hangs_is_left_and_told(tmp_path: Path, listener: RecordingListener) -> None:
    seeds, gate = SeedsStyle(), threading.Event()
    seeds.shutdown = gate.wait  # type: ignore[method-assign, assignment]  # one that hangs
    executor = SubmitExecutor(seeds)
    executor.start(make_context(tmp_path, listener, label="seeds"))
    assert "did not come back within 0.05 s" in executor.shutdown(0.05).forced[0]
    gate.set()


def test_a_users_own_pool_is_not_shut_down(tmp_path: Path, listener: RecordingListener) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        executor = FuturesExecutor("mine", pool)
        for _ in range(2):
            executor.start(make_context(tmp_path, listener, label="mine"))
            executor.shutdown(5)
        assert pool.submit(calls.double, 4).result(10) == 8


def test_a_function_of_main_and_a_closure_travel_to_processes(tmp_path: Path, listener: RecordingListener) -> None:
    executor = FuturesExecutor("processes", make_processes)
    executor.start(make_context(tmp_path, listener, label="processes"))
    factor = 3
    executor.submit(TryKey(1), Call(lambda x: x * factor, (5,)))
    assert listener.wait_for([TryKey(1)], 30)[0].value == 15
    executor.shutdown(5)


def test_a_users_broken_pool_is_named_and_says_what_to_do(tmp_path: Path, listener: RecordingListener) -> None:
    pool = make_processes()
    executor = FuturesExecutor("frail", pool)
    executor.start(make_context(tmp_path, listener, label="frail"))
    executor.submit(TryKey(1), Call(calls.kill_self))
    assert listener.wait_for([TryKey(1)], 30)[0].verdict is Verdict.LOST
    with pytest.raises(ExecutorBroken, match="function that makes the pool"):
        executor.submit(TryKey(2), Call(calls.nothing))
    executor.shutdown(5)
    pool.shutdown()


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no pool"):
        FuturesExecutor("x", 3)  # type: ignore[arg-type]  # the point of the test


def test_reports_never_come_from_inside_submit_even_if_the_pool_is_instant(
    tmp_path: Path, listener: RecordingListener
) -> None:
    class Instant(concurrent.futures.Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    executor = FuturesExecutor("instant", Instant())
    executor.start(make_context(tmp_path, listener, label="instant"))
    with listener.submitting():
        executor.submit(TryKey(1), Call(calls.double, (2,)))
    assert listener.wait_for([TryKey(1)], 10)[0].value == 4
    assert threading.active_count() >= 1
    executor.shutdown(5)


class Failing(concurrent.futures.Executor):
    """An engine whose futures hold an error of its own."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(self._error)
        return future


def test_an_error_of_the_pool_is_a_loss_with_its_text(tmp_path: Path, listener: RecordingListener) -> None:
    executor = FuturesExecutor("engine", Failing(ValueError("KilledWorker: 4 workers died")))
    executor.start(make_context(tmp_path, listener))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    (outcome,) = listener.wait_for([TryKey(1)], 10)
    assert (outcome.verdict, outcome.error) == (Verdict.LOST, None)
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.EXECUTOR
    assert "'engine' gave an error of its own: ValueError: KilledWorker: 4 workers died" in outcome.loss.reason
    executor.shutdown(5)


def test_workers_without_flow_core_refuse_a_task_and_the_error_says_what_to_do(
    tmp_path: Path, listener: RecordingListener
) -> None:
    missing = ModuleNotFoundError("No module named 'flow_core'", name="flow_core")
    executor = FuturesExecutor("engine", Failing(missing))
    executor.start(make_context(tmp_path, listener))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    (outcome,) = listener.wait_for([TryKey(1)], 10)
    assert outcome.verdict is Verdict.REFUSED
    assert "install flow_core, of this release" in str(outcome.error)
    executor.shutdown(5)


class OddFuture(Future[Any]):
    """A future that cannot say what it holds."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self._say)

    def _say(self, timeout: float | None = None) -> Any:
        raise OSError("the engine has lost it")


class Odd(concurrent.futures.Executor):
    """An engine whose futures are done, before or after it has given them, and raise when they are asked."""

    def __init__(self, method: str, *, later: bool) -> None:
        self._method = method
        self._later = later

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = OddFuture(self._method)
        if self._later:
            threading.Timer(0.01, future.set_result, (b"",)).start()
        else:
            future.set_result(b"")
        return future


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("method", ["cancelled", "exception", "result"])
def test_a_future_that_raises_when_it_is_asked_ends_its_task(
    method: str, later: bool, tmp_path: Path, listener: RecordingListener
) -> None:
    executor = FuturesExecutor("engine", Odd(method, later=later))
    executor.start(make_context(tmp_path, listener))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    (outcome,) = listener.wait_for([TryKey(1)], 10)
    assert outcome.verdict is Verdict.APP_ERROR
    assert "cannot be understood (OSError: the engine has lost it)" in str(outcome.error)
    executor.shutdown(5)


class Elsewhere(concurrent.futures.ProcessPoolExecutor):
    """A pool whose one worker was started in another directory, and that may run tasks on threads of that process."""

    def __init__(self, directory: str, *, on_threads: bool = False) -> None:
        context = multiprocessing.get_context("forkserver")
        super().__init__(1, context, initializer=os.chdir, initargs=(directory,))
        self._on_threads = on_threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(calls.on_a_thread, fn, *args) if self._on_threads else super().submit(fn, *args)


def _there(executor: FuturesExecutor, listener: RecordingListener, key: int, call: Call) -> object:
    executor.submit(TryKey(key), call)
    (outcome,) = listener.wait_for([TryKey(key)], 30)
    assert outcome.verdict is Verdict.OK, outcome.error or outcome.loss
    return outcome.value


def test_relative_paths_mean_the_directory_of_the_script_at_the_call(
    tmp_path: Path, listener: RecordingListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, other = tmp_path / "script", tmp_path / "other"
    script.mkdir()
    other.mkdir()
    executor = FuturesExecutor("pool", lambda: Elsewhere("/"))
    executor.start(make_context(tmp_path, listener))
    try:
        for number, directory in enumerate((script, other, script), 1):
            monkeypatch.chdir(directory)
            assert _there(executor, listener, number, Call(os.getcwd)) == str(directory)
        monkeypatch.chdir(other)
        other.rmdir()
        assert _there(executor, listener, 4, Call(os.getcwd)) == "/"  # the worker's own, where the script's is gone
    finally:
        executor.shutdown(5)


def test_commands_of_tasks_on_threads_of_a_worker_run_in_the_directory_of_the_script(
    tmp_path: Path, listener: RecordingListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = FuturesExecutor("pool", lambda: Elsewhere("/", on_threads=True))
    executor.start(make_context(tmp_path, listener))
    monkeypatch.chdir(tmp_path)
    try:
        command = Call(str, ("pwd > here",), steps=(BashStep("here"),))
        assert _there(executor, listener, 1, command) == 0
        assert (tmp_path / "here").read_text().strip() == str(tmp_path)
        assert _there(executor, listener, 2, Call(os.getcwd)) == "/"  # others share it, so it is left alone
    finally:
        executor.shutdown(5)


def test_a_try_that_the_pool_has_begun_is_not_withdrawn(tmp_path: Path, listener: RecordingListener) -> None:
    executor = FuturesExecutor("pool", lambda: concurrent.futures.ThreadPoolExecutor(1))
    executor.start(make_context(tmp_path, listener))
    gates = tmp_path / "gates"
    gates.mkdir()
    executor.submit(TryKey(1), Call(calls.hold, (str(gates), "one")))
    executor.submit(TryKey(2), Call(calls.double, (2,)))
    while not (gates / "one.started").exists():
        threading.Event().wait(0.005)
    assert executor.withdraw(TryKey(1)) is False
    assert executor.withdraw(TryKey(2)) is True
    (outcome,) = listener.wait_for([TryKey(2)], 10)
    assert outcome.verdict is Verdict.CANCELLED
    (gates / "one.go").touch()
    (outcome,) = listener.wait_for([TryKey(1)], 10)
    assert outcome.verdict is Verdict.OK
    assert executor.withdraw(TryKey(1)) is None  # nothing is known of it any more
    executor.shutdown(5)


class Silent(Failing):
    """An engine that does not answer when it is asked to take a task back, or raises."""

    def __init__(self, answer: Callable[[], bool]) -> None:
        self.given: Future[Any] = Future()
        self.given.cancel = answer  # type: ignore[method-assign]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.given


@pytest.mark.parametrize("how", ["hangs", "raises"])
def test_a_pool_that_does_not_say_whether_it_takes_a_task_back_is_not_waited_for(
    tmp_path: Path, listener: RecordingListener, how: str
) -> None:
    end = threading.Event()

    def cancel() -> bool:
        if how == "raises":
            raise RuntimeError("no scheduler")
        return end.wait(30)

    executor = FuturesExecutor("engine", Silent(cancel))
    executor.start(make_context(tmp_path, listener))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    assert executor.withdraw(TryKey(1)) is None
    end.set()


@pytest.mark.parametrize("how", ["hangs", "raises"])
def test_a_pool_that_does_not_cancel_does_not_hold_up_the_end_of_a_run(
    tmp_path: Path, listener: RecordingListener, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow_core.executors.futures._CANCEL_S", 0.2)
    end = threading.Event()

    def cancel() -> bool:
        if how == "raises":
            raise RuntimeError("no scheduler")
        return end.wait(60)

    executor = FuturesExecutor("engine", Silent(cancel))
    executor.start(make_context(tmp_path, listener))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    try:
        forced = executor.shutdown(30).forced
        assert [outcome.verdict for outcome in listener.wait_for([TryKey(1)], 10)] == [Verdict.CANCELLED]
        told = ("cancel() of a future of the pool of 'engine' did not come back within 0.2 s",)
        assert forced == (told if how == "hangs" else ())
    finally:
        end.set()


class Swapping(concurrent.futures.Executor):
    """A pool of another's that gives the results of two tasks for each other."""

    def __init__(self) -> None:
        self._first: tuple[concurrent.futures.Future[Any], Any] | None = None

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        result = fn(*args, **kwargs)
        if self._first is None:
            self._first = future, result
        else:
            self._first[0].set_result(result)
            future.set_result(self._first[1])
        return future


def test_a_pool_that_mixes_up_results_fails_its_tasks(tmp_path: Path, listener: RecordingListener) -> None:
    executor = FuturesExecutor("engine", Swapping())
    executor.start(make_context(tmp_path, listener))
    for number in (1, 2):
        executor.submit(TryKey(number), Call(calls.double, (number,)))
    for key, outcome in zip((1, 2), listener.wait_for([TryKey(1), TryKey(2)], 10), strict=True):
        assert outcome.verdict is Verdict.APP_ERROR
        assert f"gave the result of another task (try {3 - outcome.key}) for this one" in str(outcome.error), key
    executor.shutdown(5)


def test_what_a_pool_gives_that_is_no_result_is_named(tmp_path: Path, listener: RecordingListener) -> None:
    class Empty(concurrent.futures.Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(None)
            return future

    executor = FuturesExecutor("engine", Empty())
    executor.start(make_context(tmp_path, listener))
    executor.submit(TryKey(1), Call(calls.double, (1,)))
    (outcome,) = listener.wait_for([TryKey(1)], 10)
    assert "the pool of 'engine' gave None for the result of the task" in str(outcome.error)
    executor.shutdown(5)
