"""Ending tasks that run too long."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from flow_core.errors import AppTimeout
from flow_core.remote import walltime
from flow_core.remote.walltime import held, limited


def forever() -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        time.sleep(0.005)


def swallowing() -> str:
    try:
        forever()
    except Exception:
        return "went on"
    return "was not interrupted"


def stubborn() -> str:
    """Swallow the first interruption and go on."""
    try:
        forever()
    except AppTimeout:
        forever()
    return "was not interrupted"


@pytest.fixture(params=["main thread", "other thread"])
def limit(request: pytest.FixtureRequest) -> Callable[[Callable[[], object], float], object]:
    """Runs something limited, on the main thread by signals or on another."""

    def run(what: Callable[[], object], limit_s: float) -> object:
        if request.param == "main thread":
            return limited(what, limit_s, True)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(limited, what, limit_s, False).result()

    return run


Limit = Callable[[Callable[[], object], float], object]


def test_what_ends_in_time_gives_its_result(limit: Limit) -> None:
    assert limit(lambda: 5, 30) == 5


def test_what_fails_in_time_fails_as_it_does(limit: Limit) -> None:
    with pytest.raises(ZeroDivisionError):
        limit(lambda: 1 / 0, 30)


def test_what_runs_too_long_is_an_app_timeout_that_names_the_limit(limit: Limit) -> None:
    with pytest.raises(AppTimeout, match=r"walltime of 0\.05 s") as caught:
        limit(forever, 0.05)
    assert type(caught.value) is AppTimeout
    assert "forever" in [entry.name for entry in caught.traceback]


def test_a_task_that_swallows_the_interruption_has_timed_out_all_the_same(limit: Limit) -> None:
    with pytest.raises(AppTimeout):
        limit(swallowing, 0.05)


def test_a_task_that_goes_on_is_interrupted_again(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walltime, "_AGAIN_S", 0.2)
    with pytest.raises(AppTimeout):
        limit(stubborn, 0.05)


def test_a_task_sees_the_timeout_as_an_exception_of_its_own(limit: Limit) -> None:
    def cleaning() -> None:
        try:
            forever()
        except AppTimeout as error:
            raise ValueError("cleaned up") from error

    with pytest.raises(ValueError, match="cleaned up"):
        limit(cleaning, 0.05)


def test_an_app_timeout_of_the_task_itself_is_left_alone(limit: Limit) -> None:
    def own() -> None:
        raise AppTimeout("my own")

    with pytest.raises(AppTimeout, match="my own"):
        limit(own, 30)


def test_signal_handler_and_timer_are_put_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(AppTimeout):
        limited(forever, 0.05, True)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_nothing_is_raised_while_the_limit_is_held(limit: Limit) -> None:
    def holding() -> str:
        with held() as taken:
            assert taken is not None
            deadline, _limit_s = taken
            while time.monotonic() < deadline + 0.1:
                time.sleep(0.01)
        forever()
        return "was not interrupted afterwards"

    with pytest.raises(AppTimeout) as caught:
        limit(holding, 0.05)
    assert "forever" in [entry.name for entry in caught.traceback]


def test_without_a_limit_there_is_nothing_to_hold() -> None:
    with held() as taken:
        assert taken is None


def test_many_limits_at_once_each_end_their_own_task() -> None:
    def run(number: int) -> int | str:
        try:
            limited(forever, 0.02 * (number % 5 + 1), False)
        except AppTimeout:
            return number
        return "was not interrupted"

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(16))) == list(range(16))


def test_the_watcher_thread_ends_when_nothing_is_left_to_watch() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(limited, lambda: 1, 0.02, False).result()
    for thread in threading.enumerate():
        if thread.name == "flow-walltime":
            thread.join(30)
            assert not thread.is_alive()
