from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flow_core.errors import ConfigurationError, ExecutorClosed
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.outcome import Verdict
from flow_core.testing import ExecutorContract, RecordingListener, make_context


class TestThreadPoolExecutor(ExecutorContract):
    kills_started = True

    def make_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor("threads", max_threads=2)


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
