"""Why a task is not done: what its future, a TimeoutError and the kernel say."""

from __future__ import annotations

import concurrent.futures
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from kernel_apps import Load, add, divide

import flow_core as flow
from flow_core.errors import HiddenFutureError
from flow_core.files import File
from flow_core.futures.callbacks import hook_calls, packing_calls, user_calls
from flow_core.futures.data_future import DataFuture
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.memoizer import MemoEntry
from flow_core.interfaces.staging import Staging, Transfer
from flow_core.interfaces.waiting import Cause, CauseKind
from flow_core.memo.memoizer import BasicMemoizer
from flow_core.testing import MemoryExecutor

_MANY = 200


@flow.python_app
def read(inputs: Sequence[File]) -> int:
    return len(inputs)


@flow.python_app
def write(outputs: Sequence[File]) -> None:
    Path(outputs[0].filepath).touch()


def hooks_called() -> None:
    """Wait until hooks of a Config have been called, and those that they led to."""
    for _ in range(3):
        assert hook_calls.drain(10)


def timeless(text: str) -> str:
    """Return a text with what it says of points of time made the same."""
    return re.sub(r"since \d\d:\d\d:\d\d \(\d+ s\)", "since now", text)


def kinds(causes: Sequence[Cause]) -> list[CauseKind]:
    return [cause.kind for cause in causes]


def test_a_queued_task_says_what_is_ahead_of_it(load: Load) -> None:
    load(MemoryExecutor("memory"))
    futures = [add(number) for number in range(3)]
    explanation = futures[2].why()
    assert kinds(explanation.causes) == [CauseKind.QUEUED]
    assert timeless(str(explanation)) == (
        "task 2 (add) is queued since now:\n- executor 'memory' has not begun it: 2 tasks are ahead of it."
    )


def test_a_waiting_task_names_its_dependencies_and_what_the_first_of_them_waits_for(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    first, second = add(1), add(2)
    executor.begin(executor.waiting[1])
    last = add(add(first, second))
    (near, far) = last.why().causes
    assert near == Cause(CauseKind.DEPENDENCY, "it waits for task 2 (add), which is pending", (2,))
    assert far.tasks == (1,)
    assert "task 1 (add), with which this begins, is running" in far.text
    assert "task 1 (add) is running, task 0 (add) is queued" in add(first, second).why().line


def test_of_many_dependencies_few_are_named_and_all_are_counted(load: Load) -> None:
    load(MemoryExecutor("memory"))
    parents = [add(number) for number in range(_MANY)]
    for _ in range(2):  # the second one shares its edges with the first
        cause = joined(inputs=parents).why().causes[0]
        assert f"it waits for {_MANY} futures in its arguments" in cause.text
        assert f"({_MANY} queued in all)" in cause.text
        assert cause.text.count("(add)") == 3


@flow.python_app
def joined(inputs: list[int]) -> int:
    return sum(inputs)


def test_a_task_that_runs_says_where_and_since_when(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = add(1)
    executor.begin(executor.waiting[0])
    (cause,) = future.why().causes
    assert cause.kind is CauseKind.RUNNING
    assert cause.since_ns is not None
    assert "try 1 runs since " in cause.text
    assert "at executor 'memory' (node memory, worker 0)" in cause.text


def test_a_task_that_ended_says_so_and_how(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    good, bad = divide(1, 1), divide(1, 0)
    after = add(bad)
    executor.run_all()
    assert good.why().done
    assert str(good.why()) == "task 0 (divide) is done:\n- it has ended: nothing is waited for."
    assert "task 1 (divide) is failed" in str(bad.why())
    assert "ZeroDivisionError" in str(bad.why())
    assert "task 2 (add) is not run" in str(after.why())
    assert "task 1 (divide) failed with ZeroDivisionError" in str(after.why())


def test_a_dependency_that_has_failed_is_named_while_others_go_on(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    bad, slow = divide(1, 0), divide(1, 1)
    after = add(bad, slow)
    executor.run(executor.waiting[0])
    texts = [cause.text for cause in after.why().causes]
    assert any("a dependency has failed" in text and "task 0 (divide)" in text for text in texts)
    assert any("task 1 (divide)" in text for text in texts)


def test_tries_that_failed_are_told_with_the_last_error(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=2)
    future = add(1)
    executor.fail(executor.waiting[0], ValueError("out of luck"))
    executor.lose(executor.waiting[0], reason="the node burnt")
    line = future.why().line
    assert "of 3 tries so far 1 failed (cost 1 of retries=2), 1 was lost (infrastructure_retries=5)" in line
    assert "the node burnt" in line


def test_an_executor_that_refused_is_named(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    load(one, two)
    future = add(1)
    refusing = one if one.waiting else two
    refusing.refuse(refusing.waiting[0], ValueError("no such GPU"))
    assert f"executor {refusing.label!r} has refused it (ValueError: no such GPU)" in future.why().line


def test_an_identical_call_in_flight_is_named(load: Load) -> None:
    load(MemoryExecutor("memory"))

    @flow.python_app(cache=True)
    def cached(x: int, y: int) -> int:
        return x + y

    cached(1, 2)
    causes = cached(1, 2).why().causes
    assert kinds(causes) == [CauseKind.SAME_CALL, CauseKind.DEPENDENCY]
    assert causes[0].tasks == (0,)


def test_a_join_app_says_for_which_futures_it_waits(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.join_app
    def outer() -> list[object]:
        return [add(1), add(2)]

    future = outer()
    executor.wait_submitted(2)
    deadline = time.monotonic() + 10
    while future.task_status() != "joining" and time.monotonic() < deadline:
        time.sleep(0.01)
    causes = future.why().causes
    assert "its body has returned, and it waits for 2 futures of its body" in causes[0].text
    assert causes[0].tasks == (1, 2)


class Iterating(list[object]):
    """A list of the user's that iterates in its own way, and hangs when it is told to."""

    hanging = threading.Event()

    def __iter__(self) -> Iterator[object]:
        while self.hanging.is_set():
            time.sleep(0.01)
        return iter([self[number] for number in range(len(self))])


@pytest.fixture
def iterating() -> Iterator[type[Iterating]]:
    yield Iterating
    Iterating.hanging.clear()


@pytest.mark.timeout(60)
def test_a_join_app_names_the_futures_of_a_container_of_the_users_without_searching_it_again(
    load: Load, iterating: type[Iterating]
) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.join_app
    def outer() -> object:
        return iterating([add(1), add(2)])

    future = outer()
    executor.wait_submitted(2)
    looks = (future.why() for _ in iter(int, 1))
    next(look for look in looks if look.state == "joining")
    iterating.hanging.set()
    causes = future.why().causes
    assert "its body has returned, and it waits for 2 futures of its body: task 1 (add) is queued" in causes[0].text
    assert causes[0].tasks == (1, 2)
    iterating.hanging.clear()
    executor.run_all()
    assert future.result(20) == [2, 3]


@pytest.mark.timeout(60)
def test_a_call_names_the_futures_of_a_container_of_the_users_without_searching_it_again(
    load: Load, iterating: type[Iterating]
) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.python_app
    def total(inputs: Sequence[int]) -> int:
        return sum(inputs[number] for number in range(len(inputs)))

    future = total(inputs=iterating([add(1), add(2)]))
    iterating.hanging.set()
    causes = future.why().causes
    assert "it waits for 2 futures in its arguments: task 0 (add) is queued" in causes[0].text
    assert causes[0].tasks == (0, 1)
    iterating.hanging.clear()
    executor.run_all()
    executor.wait_submitted(1)
    executor.run_all()
    assert future.result(20) == 5


def test_files_that_are_moved_are_named_with_their_method(load: Load) -> None:
    class Slow(Staging):
        def __init__(self) -> None:
            self.futures: list[concurrent.futures.Future[None]] = []

        def can_stage_in(self, file: File) -> bool:
            return True

        def can_stage_out(self, file: File) -> bool:
            return True

        def stage(self, transfers: Sequence[Transfer]) -> concurrent.futures.Future[None]:
            self.futures.append(concurrent.futures.Future())
            return self.futures[-1]

    slow, executor = Slow(), MemoryExecutor("memory")
    load(executor, staging=[slow], data_management_max_threads=1)
    first, second = read(inputs=[File("http://user:secret@host/a")]), read(inputs=[File("http://host/b")])
    hooks_called()
    assert "its files are brought in, ahead of its start" in first.why().line
    assert "is being brought in by Slow since " in first.why().line
    assert "secret" not in first.why().line
    assert "1 file waits for a turn" in second.why().line
    assert "data_management_max_threads" in second.why().line
    slow.futures[0].set_result(None)
    hooks_called()
    assert "b is being brought in by Slow" in second.why().line
    third = write(outputs=[File("http://host/c")])
    slow.futures[1].set_result(None)
    hooks_called()
    executor.run_all()
    hooks_called()
    assert "its files are brought out" in third.why().line
    assert "http://host/c is being brought out by Slow" in third.why().line
    slow.futures[2].set_result(None)
    assert third.done()


def test_a_timeout_says_why(load: Load) -> None:
    load(MemoryExecutor("memory"))
    future = add(1)
    with pytest.raises(
        TimeoutError,
        match=r"0\.06 s; task 0 \(add\) is queued since [0-9:]+ \([0-9]+ s\): executor 'memory' has not begun it",
    ):
        future.result(timeout=0.06)
    with pytest.raises(TimeoutError, match="is queued"):
        future[0].exception(timeout=0.06)


def test_a_callback_is_told_all(load: Load) -> None:
    class Slow(MemoryExecutor):
        def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
            return [Cause(CauseKind.UNKNOWN, f"it may take {timeout_s:g} s to say")]

    executor = Slow("memory")
    load(executor)
    first, second = add(1), add(2)
    assert packing_calls.drain(10)  # an executor of the user's own is given its tasks there
    told = concurrent.futures.Future[str]()
    first.add_done_callback(lambda _: told.set_result(second.why().line))
    executor.finish(executor.waiting[0], 1)
    assert "it may take 2 s to say" in told.result(10)


class Hanging:
    """A hook that does not return before it is told to."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> float:
        self.begun.set()
        self.gate.wait(30)
        return 0.0


def test_a_hook_that_does_not_return_is_named_with_the_time_it_has_taken(load: Load) -> None:
    choose, executor = Hanging(), MemoryExecutor("one")
    load(executor, MemoryExecutor("other"), executor_chooser=lambda labels, task: (task.tid == 1 and choose()) or "one")
    first = add(1)
    second, third = add(first), add(first)
    try:
        executor.finish(executor.wait_submitted(1)[0], 2)
        assert choose.begun.wait(10)
        (cause,) = second.why().causes
        assert cause.text.startswith("executor_chooser test_a_hook_that_does_not_return_is_named")
        assert "() is called for it since" in cause.text
        assert "s), and has not returned, in " in cause.text
        assert ", at Hanging.__call__ (" in cause.text
        assert cause.since_ns
        assert "executor_chooser" not in third.why().line
    finally:
        choose.gate.set()
    hooks_called()
    assert second.task_status() == third.task_status() == "launched"


def test_a_retry_handler_that_does_not_return_is_named(load: Load) -> None:
    price, executor = Hanging(), MemoryExecutor("memory")
    load(executor, retries=1, retry_handler=price)
    future = add(1)
    try:
        executor.fail(executor.waiting[0], ValueError("no"))
        assert price.begun.wait(10)
        assert "retry_handler Hanging() is called for it since" in future.why().line
        assert "is about to be made" not in future.why().line
    finally:
        price.gate.set()


def test_a_memoizer_that_does_not_store_is_named(load: Load, tmp_path: Path) -> None:
    hanging, executor = Hanging(), MemoryExecutor("memory")

    class Forever(BasicMemoizer):
        def store(self, entries: Sequence[MemoEntry]) -> None:
            hanging()

    memoizer = Forever(checkpoint_dir=tmp_path)
    load(executor, memoizer=memoizer)
    future = flow.python_app(cache=True)(lambda: 1)()
    try:
        executor.finish(executor.wait_submitted(1)[0], 1)
        assert hanging.begun.wait(10)
        assert "memoizer Forever.store() is called for it since" in future.why().line
    finally:
        hanging.gate.set()
    assert future.result(10) == 1


def test_who_looks_often_is_not_told_at_length(load: Load) -> None:
    load(MemoryExecutor("memory"))
    with pytest.raises(TimeoutError, match=r"its why\(\) says why$"):
        add(1).result(timeout=0)


def test_futures_of_files_and_of_parts_say_what_the_whole_waits_for(load: Load, tmp_path: Path) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = write(outputs=[File(str(tmp_path / "made"))])
    assert future.outputs[0].why() == future.why()
    assert future["a"]["b"].why() == future.why()
    executor.finish(executor.waiting[0], {"a": {"b": 1}})
    assert future["a"]["b"].why().done
    assert future.outputs[0].why().done
    assert not DataFuture(None, str(tmp_path / "nobody")).why().done
    assert not DataFuture(concurrent.futures.Future(), str(tmp_path / "foreign")).why().done


def test_a_wrapped_pool_says_what_it_can(load: Load) -> None:
    gate = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        load(pool)
        wait = flow.python_app(gate.wait)
        first, second = wait(), wait()
        deadline = time.monotonic() + 10
        while CauseKind.RUNNING not in kinds(first.why().causes) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "the pool of 'ThreadPoolExecutor' says that it runs, or is next" in first.why().line
        assert "has not begun it: it has 2 tasks of ours for 1 worker, 1 task is ahead of it" in second.why().line
        gate.set()
        assert second.result(10)


def test_a_pool_that_names_no_workers_may_have_none(load: Load) -> None:
    class Engine(concurrent.futures.Executor):
        def submit(self, *_args: object, **_kwargs: object) -> concurrent.futures.Future[object]:  # type: ignore[override]
            return concurrent.futures.Future()

    load(Engine())
    future = add(1)
    assert packing_calls.drain(10)
    (cause,) = future.why().causes
    assert cause.kind is CauseKind.NO_WORKER
    assert "does not say how many workers it has" in cause.text
    flow.clear()


def test_a_task_whose_worker_is_away_is_not_said_to_run(load: Load) -> None:
    class Silent(MemoryExecutor):
        def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
            silence = Cause(CauseKind.NO_WORKER, "its manager has not been heard of for 95 s")
            return [*super().why_waiting(key, timeout_s=timeout_s), silence]

    executor = Silent("silent")
    load(executor)
    future = add(1)
    assert packing_calls.drain(10)
    executor.begin(executor.waiting[0])
    explanation = future.why()
    assert kinds(explanation.causes) == [CauseKind.NO_WORKER]
    assert explanation.state == "running"
    assert str(explanation).startswith("task 0 (add) ran when its node was last heard of:\n- its manager has not been")


def test_an_executor_that_hangs_or_raises_costs_a_moment_and_is_named(load: Load) -> None:
    gate = threading.Event()

    class Bad(MemoryExecutor):
        def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
            if timeout_s == 0:
                raise RuntimeError("no idea")
            gate.wait(30)
            return ()

    load(Bad("bad"))
    future = add(1)
    try:
        (cause,) = future.why(timeout_s=0.01).causes
        assert cause == Cause(CauseKind.UNKNOWN, "executor 'bad' did not say within 0.01 s why")
        (cause,) = future.why(timeout_s=0).causes
        assert cause.text == "executor 'bad' could not say why: its why_waiting() raised RuntimeError: no idea"
    finally:
        gate.set()


def test_the_kernel_groups_what_is_alike(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor, max_pending=7)
    first = [add(number) for number in range(4)]
    for future in first[:2]:
        add(future)
    overview = kernel.why_waiting()
    assert [(group.app, group.state, group.number) for group in overview.groups] == [
        ("add", "launched", 4),
        ("add", "pending", 2),
    ]
    told = timeless(str(overview))
    assert told.startswith("6 tasks are unfinished:\n- 4 x add, queued since now, such as task 0: executor 'memory'")
    add(1)
    held = threading.Thread(target=add, args=(2,))
    held.start()
    deadline = time.monotonic() + 10
    while not kernel.why_waiting().calls and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "1 call of apps wait until fewer than max_pending=7 tasks are unfinished" in str(kernel.why_waiting())
    executor.run_all()
    held.join(10)
    executor.run_all()
    assert str(kernel.why_waiting()) == "No task is unfinished."


class Unreported(MemoryExecutor):
    """Knows of two tries that they run, whose starts it has not reported."""

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        if key in self.waiting[:2]:
            return (Cause(CauseKind.RUNNING, "a node has it"),)
        return super().why_waiting(key, timeout_s=timeout_s)


@pytest.mark.parametrize(("number", "about"), [(7, ""), (100, "about ")])
def test_tasks_that_run_are_told_apart_from_queued_ones_before_their_starts_are_reported(
    load: Load, number: int, about: str
) -> None:
    executor = Unreported("memory")
    kernel = load(executor)
    for each in range(number):
        add(each)
    executor.wait_submitted(number)
    queued, run = kernel.why_waiting().groups
    assert (queued.number, run.number) == (number - 2, 2)
    assert kinds(queued.sample.causes) == [CauseKind.QUEUED]
    assert kinds(run.sample.causes) == [CauseKind.RUNNING]
    assert (queued.sample.task_id, run.sample.task_id) == (2, 0)
    assert str(queued).startswith(f"{about}{number - 2} x add, queued since ")
    executor.run_all()


def test_the_kernel_explains_by_id_or_future(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    future = add(1)
    assert kernel.why(0) == kernel.why(future) == future.why()
    executor.run_all()
    assert kernel.why(future).done
    with pytest.raises(LookupError, match="it has ended"):
        kernel.why(0)
    with pytest.raises(LookupError, match="none has that id yet"):
        kernel.why(1)
    with pytest.raises(TypeError):
        kernel.why("0")  # type: ignore[arg-type]


def test_a_callback_may_ask_and_nothing_waits_for_it(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    first, second = add(1), add(2)
    told: list[str] = []
    first.add_done_callback(lambda _future: told.append(second.why().line))
    executor.run(executor.waiting[0])
    assert user_calls.drain(10)
    assert "task 1 (add) is queued" in told[0]


def test_explaining_changes_nothing_while_tasks_go_on(load: Load) -> None:
    """Arguments are looked at by one thread and filled in by others."""
    load()
    done = threading.Event()
    futures: list[flow.AppFuture[int]] = [add(0)]

    def look() -> None:
        while not done.is_set():
            for future in futures[-20:]:
                future.why(0)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(300):
            futures.append(add(futures[-1]))
            futures.append(joined(inputs=[futures[-1], futures[-2]]))
        assert futures[-1].result(30)
    finally:
        done.set()
        looking.join(10)


def test_what_has_ended_is_named_with_its_app_and_how_it_ended(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, unseen_failures="ignore")
    well, badly, cancelled = add(1), add(2), add(3)
    executor.finish(executor.waiting[0], 2)
    executor.fail(executor.waiting[0], ValueError("no:"))
    cancelled.cancel()
    concurrent.futures.wait([well, badly, cancelled], 10)
    assert well.why().line == "task 0 (add) is done: it has ended: nothing is waited for"
    assert badly.why().line == "task 1 (add) is failed: it has ended with ValueError: no: nothing is waited for"
    assert "task 2 (add) is cancelled" in cancelled.why().line
    assert [one.task_status() for one in (well, badly, cancelled)] == ["exec_done", "failed", "cancelled"]


def test_a_future_that_is_hidden_is_told_by_the_line_of_the_call_alone(load: Load) -> None:
    load(MemoryExecutor("memory"))
    first = add(1)
    with pytest.raises(HiddenFutureError) as refused:
        add({"deep": [first]})
    files = [entry.path for entry in refused.traceback]
    assert str(files[0]) == __file__
    assert len(files) <= 3


def test_tasks_that_a_cleanup_cancels_are_counted_and_named(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = load(MemoryExecutor("memory"))
    futures = [add(number) for number in range(5)]
    futures[0].cancel()
    kernel.cleanup()
    kernel.cleanup()
    told = [line for line in capsys.readouterr().err.splitlines() if "cancelled" in line]
    assert len(told) == 1
    assert "4 unfinished tasks were cancelled by cleanup() (such as task 1 (add), task 2 (add), " in told[0]
