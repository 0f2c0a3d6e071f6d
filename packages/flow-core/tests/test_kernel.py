from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flow_core as flow
from flow_core.errors import (
    ConfigurationError,
    DependencyError,
    HiddenFutureError,
    JoinError,
    KernelClosedError,
    NoDataFlowKernelError,
    NotFutureError,
    TaskExceedsBlock,
    TaskKillsWorkers,
    WorkerLost,
)
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.graph.resolver import DEEP
from flow_core.interfaces.executor import Executor, ShutdownReport
from flow_core.interfaces.outcome import LossKind
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.kernel.loaded import DataFlowKernelLoader
from flow_core.testing import MemoryExecutor

Load = Callable[..., DataFlowKernel]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Give a function that loads a Config with its run directory under tmp_path; clear at the end."""

    def loaded(*executors: Any, **options: Any) -> DataFlowKernel:
        options.setdefault("run_dir", tmp_path / "runinfo")
        return flow.load(flow.Config(executors=list(executors) or None, **options))

    yield loaded
    flow.clear()


@flow.python_app
def add(x: int, y: int = 1) -> int:
    return x + y


@flow.python_app
def divide(x: float, y: float) -> float:
    return x / y


@flow.python_app
def wait_for(gate: threading.Event, _after: object = None) -> bool:
    return gate.wait(30)


@flow.python_app
def total(inputs: list[int]) -> int:
    return sum(inputs)


def hold(kernel_executor: MemoryExecutor) -> Any:
    return kernel_executor.waiting[0]


# -- dataflow


def test_results_flow_along_futures(load: Load) -> None:
    load()
    assert add(add(1), y=add(2)).result(10) == 5


def test_foreign_futures_are_waited_for_and_their_failures_are_causes(load: Load) -> None:
    load()
    foreign: concurrent.futures.Future[int] = concurrent.futures.Future()
    failing: concurrent.futures.Future[int] = concurrent.futures.Future()
    future, doomed = add(foreign), add(failing)
    assert future.task_status() == "pending"
    foreign.set_result(5)
    failing.set_exception(KeyError("gone"))
    assert future.result(10) == 6
    assert isinstance(doomed.exception(10), DependencyError)
    assert isinstance(doomed.exception(10).__cause__, KeyError)  # type: ignore[union-attr]  # it is no None


def test_parts_of_results_are_dependencies(load: Load) -> None:
    load()

    @flow.python_app
    def pair() -> dict[str, tuple[int, int]]:
        return {"both": (3, 4)}

    both: Any = pair()["both"]
    assert add(both[0], both[1]).result(10) == 7


def test_inputs_are_resolved_one_level_deep_and_copied(load: Load) -> None:
    load()
    gate = threading.Event()
    inputs: list[Any] = [add(1), add(2), 3]
    inputs.append(add(0, 0))
    future = total(inputs=inputs)
    inputs.append(future)  # the circle that the field's own users make by mistake
    gate.set()
    assert future.result(10) == 8


def test_a_hidden_future_is_refused_by_its_path(load: Load) -> None:
    load()
    with pytest.raises(HiddenFutureError, match=r"argument 'x\[0\]\[1\]'"):
        add([[0, add(1)]])


def test_the_deep_resolver_finds_it(load: Load) -> None:
    load(dependency_resolver=DEEP)

    @flow.python_app
    def first(x: Any) -> Any:
        return x[0]["k"]

    assert first([{"k": add(1)}]).result(10) == 2


def test_a_chain_of_ten_thousand_neither_recurses_nor_is_forgotten(load: Load) -> None:
    kernel = load()
    gate = threading.Event()
    future: Any = wait_for(gate)
    for _ in range(10_000):
        future = add(future)
    gate.set()
    assert future.result(40) == 10_001
    assert kernel._core.live == {}


def test_layers_in_which_all_wait_for_all_keep_their_order_and_their_failures(load: Load) -> None:
    load()

    @flow.python_app
    def after(*parents: int) -> int:
        return 1 + max(parents)

    gate = threading.Event()

    @flow.python_app
    def first(number: int) -> int:
        gate.wait(10)
        if number == 13:
            raise ValueError("the thirteenth")
        return 0

    def layers(start: list[Any]) -> list[Any]:
        for _ in range(5):
            start = [after(*start) for _ in range(20)]
        return start

    good, bad = layers([first(0) for _ in range(20)]), layers([first(number) for number in range(20)])
    gate.set()
    assert [future.result(10) for future in good] == [5] * 20
    for future in bad:
        error = future.exception(10)
        assert isinstance(error, DependencyError)
        assert str(error.__cause__) == "the thirteenth"


def test_what_many_calls_have_in_common_holds_no_results_when_it_is_done(load: Load) -> None:
    kernel = load()

    class Large:
        pass

    @flow.python_app
    def make() -> Large:
        return Large()

    @flow.python_app
    def count(*parts: Large) -> int:
        return len(parts)

    gate = threading.Event()
    held = wait_for(gate)
    parts = [make() for _ in range(20)]
    future = count(*parts, held)
    alive = weakref.ref(parts[0].result(10))
    gate.set()
    assert future.result(10) == 21
    kernel.wait_for_current_tasks()
    del parts, future
    for _ in range(500):
        gc.collect()
        if alive() is None:
            break
        threading.Event().wait(0.01)
    assert alive() is None


def test_finished_tasks_are_forgotten(load: Load) -> None:
    import gc
    import weakref

    class Big:
        pass

    @flow.python_app
    def take(value: object) -> int:
        return 1

    load()
    big = Big()
    seen = weakref.ref(big)
    future = take(big)
    future.result(10)
    del big
    add(1).result(10)
    for _ in range(100):
        if seen() is None:
            break
        gc.collect()
        threading.Event().wait(0.01)
    assert seen() is None
    assert future.done()


def test_apps_are_called_from_many_threads_at_once(load: Load) -> None:
    kernel = load()
    sums: list[int] = []

    def work(base: int) -> None:
        sums.append(sum(f.result(30) for f in [add(base, number) for number in range(200)]))

    threads = [threading.Thread(target=work, args=(base,)) for base in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted(sums) == sorted(200 * base + 19_900 for base in range(8))
    assert kernel.summary().completed == 1600
    assert kernel._reactor.bugs == 0


def test_callbacks_may_call_apps(load: Load) -> None:
    load(max_pending=1)
    done = threading.Event()
    results: list[int] = []

    def again(future: Any) -> None:
        results.append(future.result())
        if len(results) < 50:
            add(results[-1]).add_done_callback(again)
        else:
            done.set()

    add(0).add_done_callback(again)
    assert done.wait(30)
    assert results == list(range(1, 51))


def test_an_app_future_can_be_awaited(load: Load) -> None:
    import asyncio

    load()

    async def main() -> int:
        return await add(1) + sum(await asyncio.gather(add(2), add(3)))

    assert asyncio.run(main()) == 9


# -- failures


def test_an_exception_keeps_its_type(load: Load) -> None:
    load()
    with pytest.raises(ZeroDivisionError):
        divide(1, 0).result(10)


def test_the_root_cause_reaches_a_thousand_levels(load: Load) -> None:
    load()
    future: Any = divide(1, 0)
    for _ in range(1_000):
        future = add(future)
    error = future.exception(20)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError" in str(error)
    assert future.task_status() == "dep_fail"


def test_other_branches_go_on_and_all_causes_are_named(load: Load) -> None:
    load()
    bad, worse, good = divide(1, 0), total(inputs=["x"]), add(1)
    join = total(inputs=[bad, good, worse])
    error = join.exception(10)
    assert isinstance(error, DependencyError)
    assert {type(e) for e in error.dependent_exceptions} == {ZeroDivisionError, TypeError}
    assert add(good).result(10) == 3


def test_retries_are_made_and_only_the_last_failure_is_seen(load: Load) -> None:
    load(retries=2)
    tries: list[int] = []

    @flow.python_app
    def flaky(good_at: int) -> int:
        tries.append(1)
        if len(tries) < good_at:
            raise ValueError(f"try {len(tries)}")
        return len(tries)

    assert flaky(3).result(10) == 3
    tries.clear()
    with pytest.raises(ValueError, match="try 3"):
        flaky(9).result(10)


def test_a_retry_handler_prices_failures(load: Load) -> None:
    def handler(error: BaseException, task: Any) -> float:
        return 0.0 if isinstance(error, KeyError) else 10.0

    load(retries=1, retry_handler=handler)
    tries: list[int] = []

    @flow.python_app
    def fail(kind: type[Exception]) -> None:
        tries.append(1)
        if len(tries) < 5 or kind is ValueError:
            raise kind(len(tries))

    assert fail(KeyError).result(10) is None
    assert len(tries) == 5
    with pytest.raises(ValueError, match="6"):
        fail(ValueError).result(10)


def test_a_retry_handler_that_fails_fails_the_task_and_is_noted(load: Load) -> None:
    load(retries=3, retry_handler=lambda error, task: 1 / 0)
    error = divide(1, 0).exception(10)
    assert isinstance(error, ZeroDivisionError)
    assert "retry handler" in "".join(error.__notes__)


def test_eager_errors_end_what_is_not_out_and_refuse_new_calls(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, lazy_errors=False)
    failing, running, waiting = divide(1, 0), add(1), add(add(2))
    executor.run(executor.waiting[0])
    assert isinstance(failing.exception(10), ZeroDivisionError)
    assert isinstance(waiting.exception(10), DependencyError)
    with pytest.raises(DependencyError, match="lazy_errors=False"):
        add(5)
    executor.run_all()
    assert running.result(10) == 2


# -- losses


def test_losses_do_not_spend_retries(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=0, infrastructure_retries=2)
    future = add(1)
    for _ in range(2):
        executor.lose(hold(executor), LossKind.MANAGER)
    executor.run_all()
    assert future.result(10) == 2


def test_a_task_lost_too_often_ends_with_a_named_error(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, infrastructure_retries=1, max_worker_kills=9)
    future = add(1)
    for _ in range(2):
        executor.lose(hold(executor), LossKind.WORKER, "out of memory")
    error = future.exception(10)
    assert isinstance(error, WorkerLost)
    assert error.loss is not None
    for part in ("task 0 (add)", "SIGKILL", "out of memory", "infrastructure_retries=1"):
        assert part in str(error)


def test_a_task_that_kills_workers_is_stopped(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, infrastructure_retries=100, max_worker_kills=3)
    future = add(1)
    for _ in range(3):
        executor.lose(hold(executor), LossKind.WORKER)
    assert isinstance(future.exception(10), TaskKillsWorkers)


def test_a_task_longer_than_its_block_is_told_so(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = add(1)
    for _ in range(2):
        executor.lose(hold(executor), LossKind.WALLTIME)
    with pytest.raises(TaskExceedsBlock, match="walltime"):
        future.result(10)


def test_an_app_that_must_not_run_twice_is_not(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.python_app(rerun_on_loss=False)
    def once() -> None:
        return None

    future = once()
    executor.lose(hold(executor), LossKind.WORKER)
    with pytest.raises(WorkerLost, match="rerun_on_loss=False"):
        future.result(10)


def test_a_returned_try_costs_nothing(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=0, infrastructure_retries=0)
    future = add(1)
    for _ in range(20):
        executor.give_back(hold(executor))
    executor.run_all()
    assert future.result(10) == 2


def test_a_refused_task_goes_to_another_executor_or_fails_with_the_reason(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    load(one, two, executor_chooser=lambda labels, task: labels[0])
    future, doomed = add(1), add(2)
    for key in list(one.waiting):
        one.refuse(key, TypeError("does not fit"))
    first, second = two.waiting
    two.run(first)
    two.refuse(second, TypeError("nor here"))
    assert future.result(10) == 2
    with pytest.raises(TypeError, match="nor here"):
        doomed.result(10)


# -- cancelling


def test_a_waiting_task_is_cancelled_and_its_dependents_say_so(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    parent = add(1)
    child = add(parent)
    assert parent.cancel()
    assert parent.cancelled()
    assert parent.task_status() == "cancelled"
    error = child.exception(10)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, concurrent.futures.CancelledError)
    assert executor.run_all() == 0


def test_a_task_reported_as_started_is_not_cancelled(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = add(1)
    key = hold(executor)
    executor.begin(key)
    assert future.running()
    assert future.task_status() == "running"
    assert not future.cancel()
    executor.finish(key, 2)
    assert future.result(10) == 2
    assert not future.cancel()


def test_killing_ends_a_running_task_of_a_thread(load: Load) -> None:
    load()
    started = threading.Event()

    @flow.python_app
    def spin(started: threading.Event) -> None:
        started.set()
        while True:
            threading.Event().wait(0.001)

    future = spin(started)
    assert started.wait(10)
    assert not future.cancel(kill=True)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert add(1).result(10) == 2


def test_cancelling_a_data_future_cancels_its_task(load: Load, tmp_path: Path) -> None:
    load(MemoryExecutor("memory"))

    @flow.python_app
    def make(outputs: list[flow.File]) -> None:
        return None

    future = make(outputs=[flow.File(str(tmp_path / "out"))])
    assert future.outputs[0].cancel()
    assert future.cancelled()
    assert future.outputs[0].cancelled()


# -- join apps


@flow.join_app
def fib(n: int) -> Any:
    return add(n, 0) if n < 2 else add(fib(n - 1), fib(n - 2))


@flow.join_app
def countdown(n: int) -> Any:
    return add(0, 0) if n == 0 else countdown(n - 1)


def test_join_apps_compute_recursively(load: Load) -> None:
    load()
    assert fib(7).result(30) == 13


def test_join_apps_nest_a_thousand_deep(load: Load) -> None:
    load()
    assert countdown(1_000).result(40) == 0


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (lambda: [add(1), add(2)], [2, 3]),
        (lambda: {"a": add(1), "b": [add(2), 5]}, {"a": 2, "b": [3, 5]}),
        (lambda: (add(1), {"k": (add(2),)}), (2, {"k": (3,)})),
        (list, []),
    ],
)
def test_join_apps_return_any_shape(load: Load, shape: Callable[[], Any], wanted: object) -> None:
    load()
    assert flow.join_app(shape)().result(10) == wanted


def test_a_join_app_fails_with_every_cause(load: Load) -> None:
    load()

    @flow.join_app
    def both() -> Any:
        return [divide(1, 0), add(1), total(inputs=["x"])]

    error = both().exception(10)
    assert isinstance(error, JoinError)
    assert {type(e) for e in error.dependent_exceptions} == {ZeroDivisionError, TypeError}
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_join_app_that_returns_no_future_says_so(load: Load) -> None:
    load()
    with pytest.raises(NotFutureError, match="plain"):
        flow.join_app(_plain)().result(10)


def _plain() -> Any:
    return 3


_plain.__name__ = "plain"


# -- memory


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


# -- executors


def test_an_unknown_label_is_an_error_at_the_call(load: Load) -> None:
    load()
    with pytest.raises(ConfigurationError, match=r"'nowhere'.*'threads'"):
        flow.python_app(_double, executors=["nowhere"])(1)


def test_apps_run_where_they_say(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    load(one, two)
    for _ in range(5):
        flow.python_app(_double, executors="two")(1)
    assert (len(one.waiting), len(two.waiting)) == (0, 5)


def test_stdlib_pools_are_taken_as_they_are(load: Load) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        kernel = load(pool)
        assert add(1).result(10) == 2
        assert list(kernel.executors) == ["ThreadPoolExecutor"]
        flow.clear()
        assert pool.submit(_double, 2).result(10) == 4


def test_an_executor_that_does_not_start_leaves_nothing_behind(load: Load) -> None:
    class Bad(MemoryExecutor):
        def start(self, context: Any) -> None:
            raise OSError("no port")

    good = MemoryExecutor("good")
    with pytest.raises(Exception, match="no port"):
        load(good, Bad("bad"))
    with pytest.raises(NoDataFlowKernelError):
        flow.dfk()
    load(good)


# -- life and end


def test_runs_get_numbered_directories_and_a_log(load: Load, tmp_path: Path) -> None:
    first = load()
    divide(1, 0).exception(10)
    flow.clear()
    second = load()
    assert [first.run_dir.name, second.run_dir.name] == ["000", "001"]
    text = (first.run_dir / "flow.log").read_text()
    assert "ZeroDivisionError" in text
    assert "1 failed" in text
    assert first.run_id != second.run_id


def test_a_config_can_be_loaded_again_and_is_not_changed(tmp_path: Path) -> None:
    config = flow.Config(executors=[ThreadPoolExecutor()], run_dir=tmp_path / "runinfo")
    before = repr(config)
    for _ in range(2):
        with flow.load(config) as kernel:
            assert add(1).result(10) == 2
        assert kernel.config is not config
    assert repr(config) == before


def test_loading_twice_says_how_to_clear(load: Load) -> None:
    load()
    with pytest.raises(ConfigurationError, match=r"flow\.clear\(\)"):
        load()


def test_a_dictionary_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Config"):
        flow.load({"sites": []})  # type: ignore[arg-type]  # the point of the test


def test_without_a_config_an_app_says_what_to_do() -> None:
    with pytest.raises(NoDataFlowKernelError, match="load"):
        add(1)


def test_cleanup_cancels_what_is_unfinished_and_is_idempotent(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    futures = [add(1), add(add(2))]
    kernel.cleanup()
    kernel.cleanup()
    assert all(future.cancelled() for future in futures)
    with pytest.raises(KernelClosedError, match="cleaned up"):
        add(1)
    assert kernel.summary().unfinished == 0


def test_cleanup_returns_in_its_bound_though_a_task_goes_on(load: Load) -> None:
    kernel = load()
    release = threading.Event()
    started = threading.Event()

    @flow.python_app
    def stubborn(release: threading.Event, started: threading.Event) -> None:
        while not release.is_set():
            try:
                started.set()
                release.wait(0.01)
            except BaseException:
                continue

    future = stubborn(release, started)
    assert started.wait(10)
    kernel.cleanup(timeout_s=0.3)
    assert future.cancelled()
    release.set()


def test_exit_mode_wait_finishes_everything(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=tmp_path / "runinfo", exit_mode="wait")):
        futures = [add(add(n)) for n in range(50)]
    assert [f.result(0) for f in futures] == [n + 2 for n in range(50)]


def test_wait_for_current_tasks_waits_for_all(load: Load) -> None:
    kernel = load()
    futures = [add(add(n)) for n in range(200)] + [divide(1, 0)]
    kernel.wait_for_current_tasks()
    assert all(future.done() for future in futures)


def test_several_kernels_live_side_by_side(tmp_path: Path) -> None:
    kernels = [DataFlowKernel(flow.Config(run_dir=tmp_path / "runinfo")) for _ in range(2)]
    apps = [flow.python_app(_double, data_flow_kernel=kernel) for kernel in kernels]
    assert apps[1](apps[0](2)).result(10) == 8
    assert [kernel.task_count for kernel in kernels] == [1, 1]
    for kernel in kernels:
        kernel.cleanup()


def test_max_pending_holds_submission_back(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor, max_pending=3)
    for number in range(3):
        add(number)
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (add(9), passed.set()))
    thread.start()
    assert not passed.wait(0.1)
    executor.run(hold(executor))
    assert passed.wait(10)
    thread.join(10)
    assert kernel.task_count == 4


def test_submit_is_the_kernels_own_face(load: Load) -> None:
    kernel = load()
    assert kernel.submit(_double, kernel.submit(_double, 2), executors=["threads"]).result(10) == 8
    assert kernel.submit(dict, func=1).result(10) == {"func": 1}


def run_script(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )


_HEAD = """
import os, threading, time
import flow_core as flow

@flow.python_app
def sleep(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return seconds
"""


def test_a_plain_exit_cancels_with_one_line_that_counts(tmp_path: Path) -> None:
    done = run_script(tmp_path, _HEAD + "flow.load()\nfutures = [sleep(1000) for _ in range(5)]\n")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "5 unfinished tasks were cancelled" in done.stderr


def test_an_exit_with_nothing_unfinished_says_nothing(tmp_path: Path) -> None:
    done = run_script(tmp_path, _HEAD + "flow.load()\nprint(sleep(0).result())\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        _HEAD
        + """
import signal
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
with flow.load():
    sleep(1000).result()
""",
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0


def test_ctrl_c_while_apps_are_called_loses_no_task(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
import os, random, signal, threading, time
import flow_core as flow

@flow.python_app
def add(x):
    return x + 1

random.seed(7)
armed = threading.Event()

def interrupt():
    while armed.wait(60):
        armed.clear()
        time.sleep(random.uniform(0.0005, 0.01))
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
before = signal.getsignal(signal.SIGINT)
kernel = flow.load()
interrupts = 0
for _ in range(30):
    futures = []
    try:
        armed.set()
        future = add(0)
        while True:
            future = add(future) if len(futures) % 3 else add(0)
            futures.append(future)
    except KeyboardInterrupt:
        interrupts += 1
    for future in futures:
        future.result(timeout=20)
kernel.wait_for_current_tasks()
print(interrupts, kernel.summary().failed, kernel.summary().unfinished, kernel._reactor.bugs)
kernel.cleanup()
print(signal.getsignal(signal.SIGINT) is before)
""",
    )
    assert done.stdout == "30 0 0 0\nTrue\n", done.stderr


def test_a_forked_child_has_no_kernel_and_hangs_on_nothing(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        _HEAD
        + """
with flow.load():
    future = sleep(0.5)
    child = os.fork()
    if child == 0:
        for action in (lambda: future.result(), lambda: sleep(0)):
            try:
                action()
            except Exception as error:
                print(type(error).__name__, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(future.result())
""",
    )
    assert done.stdout.split() == ["KernelClosedError", "KernelClosedError", "0.5"], done.stderr


def test_the_kernel_is_an_executors_listener_only_through_the_context(load: Load) -> None:
    kernel = load()
    assert all(isinstance(executor, Executor) for executor in kernel.executors.values())


def test_ctrl_c_during_the_clean_up_is_raised_when_it_is_done(tmp_path: Path) -> None:
    class Interrupting(MemoryExecutor):
        def shutdown(self, timeout_s: float) -> ShutdownReport:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.2)
            return super().shutdown(timeout_s)

    kernel = DataFlowKernel(flow.Config(executors=[Interrupting()], run_dir=tmp_path))
    future = kernel.submit(int)
    with pytest.raises(KeyboardInterrupt):
        kernel.cleanup()
    assert future.cancelled()
    assert "1 cancelled" in (kernel.run_dir / "flow.log").read_text().splitlines()[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_loader_of_older_scripts_is_the_same(tmp_path: Path) -> None:
    kernel = DataFlowKernelLoader.load(flow.Config(run_dir=tmp_path))
    future = add(1)
    DataFlowKernelLoader.wait_for_current_tasks()
    assert future.done()
    assert DataFlowKernelLoader.dfk() is kernel is flow.dfk()
    DataFlowKernelLoader.clear()
    assert not kernel.is_open
