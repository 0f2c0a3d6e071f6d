"""Why a task of a real executor is not done: what its future says while blocks, workers or room are missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Config
from flow_core.interfaces.call import Call, Resources, TaskSpec
from flow_core.interfaces.waiting import Cause, CauseKind
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors.testing.local_run import make_executor
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.local.provider import LocalProvider

Drive = Callable[..., Driver]


class QueueOfOthers(LocalProvider):
    """A scheduler whose queue is full of other people's jobs."""

    def submit(self, *_args: object, **_options: object) -> str:
        return "4711"

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        return [JobStatus(JobState.PENDING, reason="QOSMaxJobsPerUserLimit") for _ in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        return [True for _ in job_ids]


@pytest.fixture(params=["htex", "llex"])
def drive_any(request: pytest.FixtureRequest, drive: Drive, drive_direct: Drive) -> Drive:
    """Give a function that starts an executor of either kind."""
    return drive if request.param == "htex" else drive_direct


def explained(driver: Driver, key: int, wanted: Callable[[list[Cause]], bool]) -> list[Cause]:
    """Return the causes of a try once they are as wanted: what managers have said arrives a moment later."""
    found: list[Cause] = []

    def looked() -> bool:
        found[:] = driver.executor.why_waiting(key, timeout_s=10)  # type: ignore[arg-type]  # a key is a number
        return wanted(found)

    driver.poll(looked, f"not explained as wanted: {found}")
    return found


def test_a_block_that_waits_in_the_queue_is_named_with_the_reason_of_its_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    executor = make_executor(provider=QueueOfOthers(init_blocks=1, max_blocks=1))
    kernel = flow.load(Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy_period=0.1))
    try:
        future = kernel.submit(calls.double, 1)
        told = ""
        for _ in range(100):
            told = str(future.why())
            if "QOSMax" in told:
                break
            with pytest.raises(TimeoutError):
                future.result(timeout=0.1)
        assert f"no node of {executor.label!r} is connected yet" in told
        assert f"block 0 of {executor.label!r} (job 4711) is pending at its scheduler, submitted " in told
        assert "for the scheduler's reason 'QOSMaxJobsPerUserLimit'" in told
        with pytest.raises(TimeoutError, match="QOSMaxJobsPerUserLimit"):
            future.result(timeout=0.1)
    finally:
        flow.clear()


def test_a_queue_says_how_many_are_ahead_and_who_is_busy(drive_any: Drive) -> None:
    driver = drive_any(max_workers=1)
    running = driver.hold("running")
    driver.executor.flush()
    driver.wait_held("running")
    waiting = [driver.submit(calls.nothing) for _ in range(30)]
    driver.executor.flush()
    explained(driver, running, lambda causes: [cause.kind for cause in causes] == [CauseKind.RUNNING])
    causes = explained(driver, waiting[-1], lambda causes: CauseKind.QUEUED in {cause.kind for cause in causes})
    assert any("1 of 1 worker" in cause.text or "in all for 1 worker" in cause.text for cause in causes)
    driver.release()
    driver.outcomes([running, *waiting])


def test_a_task_that_no_node_can_run_says_what_it_asks_for_and_what_there_is(drive_any: Drive) -> None:
    """While another block is still expected, such a task waits for it."""
    driver = drive_any(max_workers=1, provider=SecondBlockStaysAway(init_blocks=2, max_blocks=2))
    driver.outcome(driver.submit(calls.nothing))
    key = driver.submit_call(Call(calls.nothing, spec=TaskSpec(Resources(cores=800.0))))
    driver.executor.flush()
    causes = explained(driver, key, lambda causes: CauseKind.RESOURCES in {cause.kind for cause in causes})
    told = "; ".join(cause.text for cause in causes)
    assert "it asks for 800 cores, the node's workers have " in told
    assert "none of its workers has connected yet" in told or "is pending at its scheduler" in told
    driver.executor.cancel([key])
    driver.outcome(key)


class SecondBlockStaysAway(LocalProvider):
    """A provider whose second block never gets a worker."""

    def submit(self, command: str, *args: object, **options: object) -> str:  # type: ignore[override]
        self.submitted = getattr(self, "submitted", 0) + 1
        return str(super().submit("sleep 100" if self.submitted == 2 else command, *args, **options))  # type: ignore[arg-type]


def test_an_interchange_that_does_not_answer_is_said_not_to(drive: Drive) -> None:
    driver = drive(max_workers=1)
    driver.outcome(driver.submit(calls.nothing))
    key = driver.hold("held")
    driver.executor.flush()
    driver.wait_held("held")
    pid = driver.executor._runtime.client.incarnation.process.pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGSTOP)
    try:
        causes = driver.executor.why_waiting(key, timeout_s=0.2)
        assert causes[0].kind is CauseKind.UNKNOWN
        assert "did not answer 'why' in 0.2 s" in causes[0].text
    finally:
        os.kill(pid, signal.SIGCONT)
    driver.release()
    driver.outcome(key)
