"""Providers, strategies and handlers that raise, answer nonsense or do not answer: each an error within a bound."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from flow_core.bounded_calls import NoAnswerError
from flow_core.errors import ExecutorBroken
from flow_core.guard import named
from flow_core.interfaces.scaling import BlockLimits, Load, ScalingView
from flow_executors.scaling import strategies as advice_module
from flow_executors.scaling.block_jobs import BlockJobs, ProviderFault
from flow_executors.scaling.failures import describe, failure_text
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.recovery import RecoveryPolicy
from flow_executors.scaling.strategies import StrategyCalls, none, simple
from flow_executors.scaling.user_calls import UserCalls
from flow_providers.errors import ProviderError, SubmitException
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_testing.fake_provider import FakeProvider

ORDER = BlockOrder("true")
VIEW = ScalingView(Load(waiting=3), BlockLimits(), 0)
logger = logging.getLogger("test")


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("a bug in __str__")


# -- calls


def test_an_answer_and_an_error_come_back_as_they_are() -> None:
    calls = UserCalls("test")
    assert calls.call("it", lambda: 7, 10.0) == 7
    with pytest.raises(KeyboardInterrupt):
        calls.call("it", lambda: (_ for _ in ()).throw(KeyboardInterrupt()), 10.0)


def test_a_call_that_does_not_come_back_is_left_and_its_late_answer_handed_over() -> None:
    calls, gate, late = UserCalls("test"), threading.Event(), []
    taken = threading.Event()

    def take(answer: str) -> None:
        late.append(answer)
        taken.set()

    def slow() -> str:
        gate.wait(30)
        return "job 7"

    with pytest.raises(NoAnswerError, match=r"it has not come back within 0\.01 s"):
        calls.call("it", slow, 0.01, take)
    gate.set()
    assert taken.wait(30)
    assert late == ["job 7"]


def test_not_more_than_three_calls_are_left_hanging() -> None:
    calls, gate = UserCalls("test"), threading.Event()
    for _ in range(3):
        with pytest.raises(NoAnswerError):
            calls.call("it", lambda: gate.wait(30), 0.01)
    with pytest.raises(NoAnswerError, match="3 calls before"):
        calls.call("it", lambda: True, 10.0)
    gate.set()


# -- a provider


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    monkeypatch.setattr("flow_executors.scaling.block_jobs.ReaperGuardian", NoReaper)
    (tmp_path / "run").mkdir()

    def make(provider: object) -> BlockJobs:
        run = tmp_path / "run"
        return BlockJobs(provider, label="ex", run_id="r", run_dir=run, executor_dir=run / "ex", logger=logger)  # type: ignore[arg-type]

    return make


class NoReaper:
    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def tend(self) -> None: ...


@pytest.mark.parametrize("error", [OSError("down"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Hostile()])
@pytest.mark.parametrize("verb", ["submit", "status", "cancel"])
def test_whatever_a_provider_raises_is_an_error_that_names_it(verb, error, jobs) -> None:
    provider = FakeProvider()
    one = jobs(provider)
    setattr(provider, verb, lambda *args, **kwargs: (_ for _ in ()).throw(error))
    with pytest.raises(ProviderFault, match=rf"FakeProvider\.{verb} raised {type(error).__name__}") as caught:
        one.submit("0", ORDER) if verb == "submit" else getattr(one, verb)(["1"])
    assert caught.value.__cause__ is error


def test_what_a_provider_is_to_raise_comes_as_it_is(jobs) -> None:
    provider = FakeProvider()
    provider.fail_submits(SubmitException("the queue is closed"))
    with pytest.raises(SubmitException, match="the queue is closed"):
        jobs(provider).submit("0", ORDER)


@pytest.mark.parametrize("answer", [None, [], [None], ["RUNNING"], 7, [JobStatus(JobState.RUNNING)] * 2])
def test_a_status_that_is_none_is_an_error(answer, jobs) -> None:
    provider = FakeProvider()
    one = jobs(provider)
    provider.status = lambda job_ids: answer  # type: ignore[method-assign]
    with pytest.raises(ProviderFault, match=r"FakeProvider\.status"):
        one.status(["1"])


@pytest.mark.parametrize("answer", [None, "", 17])
def test_an_id_that_is_no_text_is_an_error(answer, jobs) -> None:
    provider = FakeProvider()
    provider.submit = lambda *args, **kwargs: answer  # type: ignore[method-assign]
    with pytest.raises(ProviderFault, match="must return the id"):
        jobs(provider).submit("0", ORDER)


def test_a_job_that_was_submitted_too_late_is_cancelled(jobs) -> None:
    provider, gate = FakeProvider(), threading.Event()
    cancelled = threading.Event()
    real_submit, real_cancel = provider.submit, provider.cancel

    def submit(*args: object, **kwargs: object) -> str:
        gate.wait(30)
        return real_submit(*args, **kwargs)  # type: ignore[arg-type]

    def cancel(job_ids):
        answer = real_cancel(job_ids)
        cancelled.set()
        return answer

    provider.submit, provider.cancel = submit, cancel  # type: ignore[method-assign]
    one = jobs(provider)
    one.call_timeout_s = 0.01
    with pytest.raises(ProviderFault, match=r"FakeProvider\.submit has not come back"):
        one.submit("0", ORDER)
    gate.set()
    assert cancelled.wait(30)
    assert provider.jobs["1"].status.state is JobState.CANCELLED


def test_a_run_directory_that_moves_is_noticed(jobs, tmp_path) -> None:
    one = jobs(FakeProvider())
    assert one.moved == ""
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert "moved or removed" in one.moved
    (tmp_path / "run").mkdir()
    assert "replaced by another" in one.moved
    (tmp_path / "run").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "run")
    assert one.moved == ""


# -- a strategy


@pytest.mark.parametrize("answer", [None, "many", 1.5, [], SystemExit(1), Hostile(), ZeroDivisionError()])
def test_a_strategy_of_no_use_is_told_once_and_simple_decides(answer, caplog) -> None:
    def mine(view):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    advice = StrategyCalls("ex", mine, True, logger)
    assert [advice.change(VIEW) for _ in range(3)] == [simple(VIEW)] * 3
    assert caplog.text.count("'simple' decides instead") == 1
    assert "mine" in advice.problem


def test_a_strategy_that_hangs_does_not_hang_the_scaling(monkeypatch) -> None:
    monkeypatch.setattr(advice_module, "_STRATEGY_S", 0.01)
    gate = threading.Event()
    advice = StrategyCalls("ex", lambda view: gate.wait(30), True, logger)
    assert [advice.change(VIEW) for _ in range(5)] == [simple(VIEW)] * 5
    gate.set()


def test_a_strategy_that_works_is_followed() -> None:
    assert StrategyCalls("ex", lambda view: -2, True, logger).change(VIEW) == -2
    assert StrategyCalls("ex", none, True, logger).change(VIEW) == 0


# -- a block error handler


def test_a_handler_decides_with_an_error_or_none() -> None:
    broken = failure_text("all is lost", None)
    assert StrategyCalls("ex", none, True, logger).verdict(None, {}, broken) is broken
    assert StrategyCalls("ex", none, lambda host, failed: None, logger).verdict(None, {}, broken) is None
    mine = StrategyCalls("ex", none, lambda host, failed: ValueError("mine"), logger).verdict(None, {}, broken)
    assert isinstance(mine, ExecutorBroken)
    assert "ValueError: mine" in str(mine)
    assert isinstance(mine.__cause__, ValueError)


@pytest.mark.parametrize("answer", [7, SystemExit(2), Hostile()])
def test_a_handler_of_no_use_is_named_beside_what_happened(answer) -> None:
    def mine(host, failed):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    error = StrategyCalls("ex", none, mine, logger).verdict(None, {}, failure_text("all is lost", None))
    assert error is not None
    assert "all is lost" in str(error)
    assert "block_error_handler" in str(error)


# -- what is told


def test_an_error_whose_text_raises_has_a_name_all_the_same() -> None:
    assert named(Hostile()) == "Hostile: <its text cannot be shown: str() raised SystemExit>"
    assert named(ValueError()) == "ValueError"


def test_the_text_never_says_of_an_executor_that_worked_that_none_connected() -> None:
    recovery = RecoveryPolicy(1, within_s=60.0)
    recovery.failed("no", 0.0)
    failed = {"3": JobStatus(JobState.FAILED, exit_code=3)}
    fresh = describe("ex", recovery, 0.0, failed, {"3": "job-3"}, {})
    assert "1 block of executor 'ex' ended before any workers connected" in fresh
    recovery.succeeded()
    recovery.failed("no", 9.0)
    worked = describe("ex", recovery, 61.0, failed, {"3": "job-3"}, {"3": "last words"})
    assert "has had no workers for 61 s" in worked
    assert "connected" not in worked
    assert "| last words" in worked
    assert "block 3, job job-3: FAILED, exit code 3" in worked


def test_the_traceback_of_what_was_not_foreseen_is_told_and_that_of_a_refusal_is_not() -> None:
    recovery = RecoveryPolicy(1)
    recovery.failed("no", 0.0)

    def fault(error: BaseException) -> str:
        try:
            try:
                raise error
            except ZeroDivisionError as inner:
                raise ProviderFault("submit raised") from inner
        except ProviderError as outer:
            return describe("ex", recovery, 0.0, {}, {}, {}, outer)

    assert "ZeroDivisionError: a bug" in fault(ZeroDivisionError("a bug"))
    assert "it was raised here" not in fault(SubmitException("no"))


def test_states_that_stay_away_hold_nobody_up_and_are_taken_when_they_come(jobs, monkeypatch) -> None:
    monkeypatch.setattr("flow_executors.scaling.block_jobs.STATUS_WAIT_S", 0.01)
    provider, gate, asked = FakeProvider(), threading.Event(), list[list[str]]()

    def slow(job_ids):
        asked.append(list(job_ids))
        gate.wait(30)
        return [JobStatus(JobState.RUNNING)] * len(job_ids)

    provider.status = slow  # type: ignore[method-assign]
    one = jobs(provider)
    for ids in (["1"], ["1"], ["1", "2"]):
        with pytest.raises(ProviderFault, match=r"FakeProvider\.status has not come back yet"):
            one.status(ids)
    assert asked == [["1"]]
    gate.set()
    monkeypatch.setattr("flow_executors.scaling.block_jobs.STATUS_WAIT_S", 30.0)
    assert one.status(["1", "2"]) == {"1": JobStatus(JobState.RUNNING)}
    assert set(one.status(["1", "2"])) == {"1", "2"}


def test_who_never_answers_is_asked_a_few_times_more(jobs, monkeypatch) -> None:
    monkeypatch.setattr("flow_executors.scaling.block_jobs.STATUS_WAIT_S", 0.01)
    provider, gate, asked = FakeProvider(), threading.Event(), list[object]()
    provider.status = lambda job_ids: (asked.append(job_ids), gate.wait(30), [])[2]  # type: ignore[method-assign]
    one = jobs(provider)
    one.call_timeout_s = 0.0
    for _ in range(10):
        with pytest.raises(ProviderFault, match="has not come back yet"):
            one.status(["1"])
    gate.set()
    assert len(asked) == 4
