"""A block that is lost while its replacement fails, too: tasks wait, and run when the fault is over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Config, python_app
from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_executors.htex import HighThroughputExecutor
from flow_executors.llex import LowLatencyExecutor
from flow_executors.testing.local_run import processes_of, wait_until
from flow_providers.errors import FileCopyException
from flow_providers.local.provider import LocalProvider

pytestmark = pytest.mark.slow

Kind = type[HighThroughputExecutor]


@python_app
def double(x):
    return 2 * x


@python_app
def double_after(x, seconds):

    time.sleep(seconds)
    return 2 * x


def executor(kind: Kind = HighThroughputExecutor, provider: dict[str, object] | None = None, **options: object):
    blocks = LocalProvider(**({"init_blocks": 1, "max_blocks": 1} | (provider or {})))  # type: ignore[arg-type]
    given = {"max_workers": 2, "cores_per_worker": 0.5, "heartbeat_period": 0.3, "heartbeat_threshold": 4}
    return kind(label="ex", provider=blocks, **(given | options))  # type: ignore[arg-type]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))

    def start(one: HighThroughputExecutor, **settings: object):
        given = {"run_dir": str(tmp_path / "runinfo"), "strategy_period": 0.2}
        return flow.load(Config(executors=[one], **(given | settings)))  # type: ignore[arg-type]

    yield start
    flow.clear()


def manager(one: HighThroughputExecutor) -> int:
    wait_until(lambda: bool(one.connected_managers()), "no manager connected")
    return one.connected_managers()[0].pid


def kill_manager(one: HighThroughputExecutor) -> None:
    os.kill(manager(one), signal.SIGKILL)
    wait_until(lambda: not one.connected_managers(), "the manager is still there")


def raising(*errors: BaseException) -> Callable[..., Callable[..., str]]:
    left = list(errors)

    def wrap(submit: Callable[..., str]) -> Callable[..., str]:
        def submit_or_raise(*args: object, **kwargs: object) -> str:
            if left:
                raise left.pop(0)
            return submit(*args, **kwargs)

        return submit_or_raise

    return wrap


KINDS = pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])


@KINDS
def test_tasks_wait_while_a_provider_raises_whatever_it_likes_and_run_after_that(kind, load):
    one = executor(kind)
    with load(one):
        assert double(1).result(timeout=40) == 2
        one.provider.submit = raising(OSError("no answer just now"), SystemExit(3))(one.provider.submit)
        kill_manager(one)
        assert [double(n).result(timeout=40) for n in range(3)] == [0, 2, 4]


def test_tasks_wait_while_the_prologue_of_blocks_fails_and_run_after_that(load, tmp_path):
    fault = tmp_path / "fault"
    one = executor(provider={"worker_init": f"test ! -e {fault} || exit 1"})
    with load(one):
        assert double(1).result(timeout=40) == 2
        fault.touch()
        kill_manager(one)
        futures = [double(n) for n in range(4)]
        wait_until(lambda: one._runtime.scaler.attempts >= 2, "no second attempt was made")
        assert any("failed" in cause.text for cause in one._runtime.scaler.why_waiting())
        fault.unlink()
        assert [future.result(timeout=40) for future in futures] == [0, 2, 4, 6]


def test_tasks_wait_while_new_managers_are_killed_before_they_connect(load):
    one = executor()
    kernel = load(one)
    with kernel:
        assert double(1).result(timeout=40) == 2
        seen = set(processes_of(kernel.run_id))
        kill_manager(one)
        futures = [double(n) for n in range(4)]
        for _ in range(2):
            new = _next_manager(kernel.run_id, seen)
            os.kill(new, signal.SIGKILL)
        assert [future.result(timeout=40) for future in futures] == [0, 2, 4, 6]


def _next_manager(run_id: str, seen: set[int]) -> int:
    found: list[int] = []

    def look() -> bool:
        words = processes_of(run_id)
        found[:] = [pid for pid, text in words.items() if "flow_executors.manager" in text and "python" in text]
        found[:] = [pid for pid in found if pid not in seen]
        return bool(found)

    wait_until(look, "no new manager was started")
    seen.update(found)
    return max(found)


def test_an_executor_that_gave_up_makes_a_fresh_attempt_for_a_later_call(load, tmp_path):
    fault = tmp_path / "fault"
    fault.touch()
    one = executor(provider={"worker_init": f"test ! -e {fault} || exit 3"})
    with load(one):
        error = double(1).exception(timeout=40)
        assert isinstance(error, ExecutorBroken)
        assert "before any workers connected" in str(error)
        assert isinstance(double(1).exception(timeout=40), ExecutorBroken)
        fault.unlink()
        assert double(1).result(timeout=40) == 2


@KINDS
def test_an_executor_that_worked_says_truly_why_it_gave_up_and_recovers(kind, load, tmp_path):
    fault = tmp_path / "fault"
    one = executor(kind, {"worker_init": f"test ! -e {fault} || exit 3"}, recovery_timeout=2.0)
    with load(one):
        assert double(1).result(timeout=40) == 2
        fault.touch()
        kill_manager(one)
        error = double(2).exception(timeout=40)
        assert isinstance(error, ExecutorBroken)
        assert "has had no workers for" in str(error)
        assert "before any workers connected" not in str(error)
        assert "exit code 3" in str(error)
        fault.unlink()
        assert double(3).result(timeout=40) == 6


def test_tasks_wait_while_the_disk_of_the_run_is_full_and_run_when_there_is_room(load):
    one = executor()
    with load(one):
        assert double(1).result(timeout=40) == 2
        push = one.provider.channel.push_bytes

        def full(*args, **kwargs):
            raise FileCopyException("cannot write: [Errno 28] No space left on device")

        one.provider.channel.push_bytes = full
        kill_manager(one)
        futures = [double(n) for n in range(4)]
        wait_until(lambda: one._runtime.scaler.attempts >= 2, "no second attempt was made")
        assert any("No space left" in cause.text for cause in futures[0].why().causes)
        one.provider.channel.push_bytes = push
        assert [future.result(timeout=40) for future in futures] == [0, 2, 4, 6]


def test_a_provider_that_raises_from_the_start_is_named_with_its_traceback(load):
    one = executor()
    one.provider.submit = raising(*[ZeroDivisionError("a bug of the provider")] * 9)(one.provider.submit)
    with load(one):
        error = double(1).exception(timeout=40)
    assert isinstance(error, ExecutorBroken)
    assert "LocalProvider.submit raised ZeroDivisionError: a bug of the provider" in str(error)
    assert "submit_or_raise" in str(error)  # its traceback


def test_a_launcher_that_raises_is_named(load):
    def launcher(command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        raise KeyError("a bug of the launcher")

    with load(executor(provider={"launcher": launcher})):
        error = double(1).exception(timeout=40)
    assert isinstance(error, ExecutorBroken)
    assert "KeyError: 'a bug of the launcher'" in str(error)


@pytest.mark.parametrize("verb", ["status", "cancel"])
def test_a_provider_that_raises_when_it_is_asked_does_not_stop_the_run(verb, load):
    one = executor(provider={"max_blocks": 2})
    real = getattr(one.provider, verb)
    faults = [KeyboardInterrupt(), RuntimeError("a bug"), SystemExit(1)]

    def ask(job_ids):
        if faults:
            raise faults.pop()
        return real(job_ids)

    setattr(one.provider, verb, ask)
    with load(one):
        assert double(1).result(timeout=40) == 2
        kill_manager(one)
        assert double(2).result(timeout=40) == 4


@pytest.mark.parametrize("answer", ["raises", "nonsense"])
def test_a_strategy_of_no_use_is_named_and_the_simple_one_decides(answer, load, caplog):
    def mine(view):
        if answer == "raises":
            raise SystemExit("a bug of the strategy")
        return "many"

    with load(executor(provider={"init_blocks": 0}), strategy=mine):
        assert double(1).result(timeout=40) == 2
    assert "'simple' decides instead" in caplog.text


@pytest.mark.parametrize("answer", ["raises", "nonsense"])
def test_a_block_error_handler_of_no_use_is_named_in_the_error(answer, load):
    def handler(host, failed):
        if answer == "raises":
            raise KeyboardInterrupt
        return 7

    with load(executor(provider={"worker_init": "exit 3"}, block_error_handler=handler)):
        error = double(1).exception(timeout=40)
    assert isinstance(error, ExecutorBroken)
    assert "exit code 3" in str(error)
    assert "block_error_handler" in str(error)


@KINDS
def test_a_block_whose_manager_is_frozen_is_cancelled_and_replaced(kind, load):
    one = executor(kind, heartbeat_threshold=2)
    with load(one):
        assert double(1).result(timeout=40) == 2
        os.kill(manager(one), signal.SIGSTOP)
        assert [double(n).result(timeout=40) for n in range(3)] == [0, 2, 4]
        wait_until(lambda: one.status()["0"].terminal, "the frozen block's job still runs")
        assert double(9).result(timeout=40) == 18


def test_a_block_that_runs_and_never_joins_is_cancelled_and_replaced(load, tmp_path):
    fault = tmp_path / "fault"
    one = executor(provider={"worker_init": f"test ! -e {fault} || sleep 600"}, block_start_timeout=6)
    with load(one):
        assert double(1).result(timeout=40) == 2
        fault.touch()
        kill_manager(one)
        future = double(2)
        wait_until(lambda: one._runtime.scaler.attempts > 0, "the block that hangs was not found")
        fault.unlink()
        assert future.result(timeout=40) == 4


def test_a_run_directory_that_was_moved_is_named_and_does_not_stop_the_run(load, tmp_path, caplog):
    one = executor(heartbeat_threshold=2)
    with load(one):
        assert double(1).result(timeout=40) == 2
        (tmp_path / "runinfo").rename(tmp_path / "elsewhere")
        kill_manager(one)
        assert [double(n).result(timeout=40) for n in range(3)] == [0, 2, 4]
    assert "moved or removed" in caplog.text


def test_a_scheduler_that_stays_away_does_not_keep_a_lost_block_alive(load):
    one = executor(heartbeat_threshold=2)
    with load(one):
        assert double(1).result(timeout=40) == 2

        def away(job_ids):
            raise OSError("the scheduler is down")

        one.provider.status = one.provider.cancel = away
        kill_manager(one)
        assert double(2).result(timeout=40) == 4
        del one.provider.status, one.provider.cancel


def test_a_config_under_which_no_block_can_ever_come_is_refused(load):
    with pytest.raises(ConfigurationError, match="max_blocks=0"):
        executor(provider={"max_blocks": 0, "init_blocks": 0})
    with pytest.raises(ConfigurationError, match="init_blocks"):
        load(executor(provider={"init_blocks": 0}), strategy="none")
    with pytest.raises(ConfigurationError, match="init_blocks"):
        load(executor(LowLatencyExecutor, {"init_blocks": 0}))


def test_a_reaper_that_was_killed_is_replaced_while_the_run_goes_on(load):
    one = executor()
    with load(one):
        assert double(1).result(timeout=40) == 2
        guardian = one._runtime.scaler._jobs._reaper
        first = guardian.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: guardian.pid not in (0, first), "the reaper was not replaced")
        assert double(2).result(timeout=40) == 4
