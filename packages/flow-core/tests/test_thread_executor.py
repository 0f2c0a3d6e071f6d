from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from flow_core.errors import AppTimeout, ConfigurationError, ExecutorBroken, ExecutorClosed
from flow_core.executors import thread_pool
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import Call, TaskSpec, TryKey
from flow_core.interfaces.outcome import Place, Verdict
from flow_core.testing import ExecutorContract, RecordingListener, make_context


class TestThreadPoolExecutor(ExecutorContract):
    kills_started = True

    def make_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor("threads", max_threads=2)


@pytest.mark.parametrize("option", ["working_dir", "thread_name_prefix"])
def test_a_text_of_a_wrong_type_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"ThreadPoolExecutor: {option} must be .*, not 3"):
        ThreadPoolExecutor(**{option: 3})  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2"])
def test_an_impossible_number_of_threads_is_refused_by_name(count: object) -> None:
    with pytest.raises(ConfigurationError, match="max_threads"):
        ThreadPoolExecutor(max_threads=count)  # type: ignore[arg-type]  # the point of the test


def test_its_repr_evaluates_back() -> None:
    executor = ThreadPoolExecutor("t", 3, "prefix", None, "/tmp", False)
    twin = eval(repr(executor))
    assert repr(twin) == repr(executor)
    assert (twin.label, twin.max_threads, twin.working_dir, twin.managed) == ("t", 3, "/tmp", False)


def test_it_does_not_scale() -> None:
    executor = ThreadPoolExecutor()
    assert executor.scaling_enabled is False
    with pytest.raises(NotImplementedError, match="max_threads"):
        executor.scale_out(1)
    with pytest.raises(NotImplementedError, match="max_threads"):
        executor.scale_in(1)


def test_threads_are_started_when_needed_and_named(tmp_path: Path) -> None:
    executor = ThreadPoolExecutor("few", max_threads=64, thread_name_prefix="mine")
    listener = RecordingListener()
    executor.start(make_context(tmp_path, listener, label="few"))
    before = threading.active_count()
    executor.submit(TryKey(1), Call(lambda: threading.current_thread().name))
    (outcome,) = listener.wait_for([TryKey(1)], 10)
    assert outcome.value == "mine_0"
    assert threading.active_count() <= before + 1
    executor.shutdown(5)


def test_two_kernels_cannot_share_it(tmp_path: Path) -> None:
    executor = ThreadPoolExecutor("one")
    executor.start(make_context(tmp_path, RecordingListener(), label="one"))
    with pytest.raises(ExecutorClosed, match="another kernel"):
        executor.start(make_context(tmp_path, RecordingListener(), label="one"))
    executor.shutdown(5)


def test_shutdown_names_a_thread_that_does_not_end(tmp_path: Path) -> None:
    executor = ThreadPoolExecutor("stuck", max_threads=1)
    listener = RecordingListener()
    executor.start(make_context(tmp_path, listener, label="stuck"))
    release = threading.Event()
    executor.submit(TryKey(1), Call(_stubborn, (release,)))
    assert listener.wait_until(lambda: TryKey(1) in listener.starts, 10)
    report = executor.shutdown(0.05)
    assert "stuck_0" in report.forced[0]
    assert listener.outcomes[TryKey(1)][0].verdict is Verdict.CANCELLED
    release.set()


def _stubborn(release: threading.Event) -> None:
    while not release.is_set():
        try:
            release.wait(0.01)
        except BaseException:  # what ends other tasks does not end this one
            continue


# -- tasks that cannot be stopped


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "PATIENCE_S", 0.05)
    monkeypatch.setattr(thread_pool, "LEAST_LEFT", 1)


def _blocked(release: threading.Event) -> int:
    """Block in one long call: no exception comes in before it returns."""
    release.wait(30)
    return 5


WALLTIME = TaskSpec(walltime_s=0.05)


@pytest.mark.usefixtures("impatient")
def test_walltime_fails_a_task_in_time_that_cannot_be_stopped(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    release = threading.Event()
    executor.submit(TryKey(1), Call(_blocked, (release,), spec=WALLTIME))
    (outcome,) = listener.wait_for([TryKey(1)], 20)
    assert outcome.verdict is Verdict.APP_ERROR
    assert isinstance(outcome.error, AppTimeout)
    assert "walltime of 0.05 s" in str(outcome.error)
    assert "still occupies thread stuck_0 of executor 'stuck'" in str(outcome.error)
    executor.submit(TryKey(2), Call(lambda: "the pool goes on"))
    (outcome,) = listener.wait_for([TryKey(2)], 20)
    assert outcome.value == "the pool goes on"
    release.set()
    assert executor.shutdown(5).elapsed_s < 5
    assert [len(all_of) for all_of in listener.outcomes.values()] == [1, 1]  # the late result was dropped


@pytest.mark.usefixtures("impatient")
def test_a_task_that_was_killed_and_goes_on_ends_as_cancelled(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    release = threading.Event()
    executor.submit(TryKey(1), Call(_blocked, (release,)))
    assert listener.wait_until(lambda: TryKey(1) in listener.starts, 10)
    executor.cancel([TryKey(1)], kill=True)
    (outcome,) = listener.wait_for([TryKey(1)], 20)
    assert outcome.verdict is Verdict.CANCELLED
    release.set()
    executor.shutdown(5)


@pytest.mark.usefixtures("impatient")
def test_a_pool_whose_threads_are_all_stuck_says_so_and_works_again_when_one_ends(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    release = threading.Event()
    keys = [TryKey(number) for number in range(1, 6)]  # with LEAST_LEFT == 1 the bound is 4 for one thread
    for key in keys:
        executor.submit(key, Call(_blocked, (release,), spec=WALLTIME))
    listener.wait_for(keys, 30)
    with pytest.raises(ExecutorBroken, match="5 are occupied by tasks that ran longer than their walltime"):
        executor.submit(TryKey(6), Call(lambda: 6))
    release.set()
    deadline = time.monotonic() + 20
    while not _takes(executor, TryKey(7)):  # nobody reports that a thread came back
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    (outcome,) = listener.wait_for([TryKey(7)], 20)
    assert outcome.value == 7
    executor.shutdown(5)


@pytest.mark.usefixtures("impatient")
def test_tries_that_wait_when_the_last_thread_is_stuck_are_refused(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    release = threading.Event()
    keys = [TryKey(number) for number in range(1, 9)]
    for key in keys:
        executor.submit(key, Call(_blocked, (release,), spec=WALLTIME))
    outcomes = listener.wait_for(keys, 30)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.APP_ERROR] * 5 + [Verdict.REFUSED] * 3
    assert isinstance(outcomes[-1].error, ExecutorBroken)
    release.set()
    executor.shutdown(5)


@pytest.mark.usefixtures("impatient")
def test_shutdown_does_not_wait_for_threads_that_were_left_behind(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    release = threading.Event()
    executor.submit(TryKey(1), Call(_blocked, (release,), spec=WALLTIME))
    listener.wait_for([TryKey(1)], 20)
    report = executor.shutdown(20)
    assert report.forced == ("thread stuck_0 of executor 'stuck' still runs its task and was left behind",)
    assert report.elapsed_s < 20
    release.set()


@pytest.mark.usefixtures("impatient")
def test_shutdown_waits_no_longer_than_its_patience_for_what_takes_no_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "SHUTDOWN_PATIENCE_S", 0.05)
    executor, listener = _started(tmp_path, 2)
    release = threading.Event()
    for key in (TryKey(1), TryKey(2)):
        executor.submit(key, Call(_blocked, (release,)))
    assert listener.wait_until(lambda: len(listener.starts) == 2, 20)
    executor.cancel([TryKey(1)], kill=True)
    report = executor.shutdown(29)
    assert not release.is_set()
    assert report.elapsed_s < 25, "it did not wait for the tasks"
    assert [outcome.verdict for outcome in listener.wait_for([TryKey(1), TryKey(2)], 5)] == [Verdict.CANCELLED] * 2
    assert len(report.forced) == 2
    assert "a task on thread stuck_1" in report.left
    assert "of executor 'stuck', in code that takes no exception" in report.left
    release.set()


def test_a_queued_task_is_told_which_tasks_occupy_the_threads_and_since_when(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    release = threading.Event()
    executor.submit(TryKey(1), Call(_blocked, (release,)))
    executor.submit(TryKey(2), Call(lambda: 2))
    assert listener.wait_until(lambda: TryKey(1) in listener.starts, 20)
    (cause,) = executor.why_waiting(TryKey(2), timeout_s=1)
    assert "1 of 1 thread of executor 'stuck' is busy (max_threads) with a task since " in cause.text
    release.set()
    listener.wait_for([TryKey(1), TryKey(2)], 20)
    executor.shutdown(5)


def test_a_task_killed_at_the_very_moment_of_its_start_is_ended(tmp_path: Path) -> None:
    executor = ThreadPoolExecutor("early", max_threads=1)

    class Killing(RecordingListener):
        def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
            super().started(tries)
            executor.cancel([tries[0][0]], kill=True)

    listener = Killing()
    executor.start(make_context(tmp_path, listener, label="early"))
    executor.submit(TryKey(1), Call(threading.Event().wait, (30,)))
    (outcome,) = listener.wait_for([TryKey(1)], 20)
    assert outcome.verdict is Verdict.CANCELLED
    executor.shutdown(5)


def test_a_walltime_of_centuries_is_none(tmp_path: Path) -> None:
    executor, listener = _started(tmp_path, 1)
    executor.submit(TryKey(1), Call(lambda: 1, spec=TaskSpec(walltime_s=1e10)))
    (outcome,) = listener.wait_for([TryKey(1)], 20)
    assert outcome.value == 1
    executor.shutdown(5)


def _started(tmp_path: Path, threads: int) -> tuple[ThreadPoolExecutor, RecordingListener]:
    executor, listener = ThreadPoolExecutor("stuck", max_threads=threads), RecordingListener()
    executor.start(make_context(tmp_path, listener, label="stuck"))
    return executor, listener


def _takes(executor: ThreadPoolExecutor, key: TryKey) -> bool:
    try:
        executor.submit(key, Call(lambda: 7))
    except ExecutorBroken:
        return False
    return True
