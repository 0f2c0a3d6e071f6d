"""The end of an executor whose jobs cannot be ended: waited for some seconds, and told."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from flow_core.events import EventKind
from flow_executors.scaling.block_jobs import BlockJobs
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.job_hosts_core import Joined
from flow_executors.scaling.scaler import Scaler
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_testing.fake_provider import FakeProvider


class NoReaper:
    closed = False

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def close(self) -> None:
        NoReaper.closed = True


class Provider(FakeProvider):
    """Remembers which jobs it was to clear."""

    def __init__(self) -> None:
        super().__init__()
        self.cleared: list[str] = []

    def clear(self, job_ids: Sequence[str]) -> None:
        self.cleared += job_ids


class World:
    """The scaler of an executor with one block, whose job has been submitted."""

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir()
        logger = logging.getLogger("test")
        self.provider = Provider()
        context = SimpleNamespace(
            logger=logger,
            scaling=SimpleNamespace(strategy="none", period_s=5.0, max_idletime_s=120.0),
            events=SimpleNamespace(wants=EventKind(0)),
        )
        host = SimpleNamespace(label="ex", dismiss=lambda _: None)
        self.scaler = Scaler(host, self.provider, context)  # type: ignore[arg-type]
        jobs = self.scaler._jobs = BlockJobs(
            self.provider, label="ex", run_id="r", run_dir=run_dir, executor_dir=run_dir / "ex", logger=logger
        )
        self.block = self.scaler._core.new_block()
        self.job_id = jobs.submit(self.block, BlockOrder("true"))
        self.scaler._core.submitted(self.block, self.job_id, time.monotonic())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    monkeypatch.setattr("flow_executors.scaling.block_jobs.ReaperGuardian", NoReaper)
    return World(tmp_path / "run")


def test_a_host_that_does_not_answer_is_given_up_and_told_and_its_jobs_are_left_to_the_reaper(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow_executors.scaling.scaler._SILENT_S", 0.2)
    scaler = world.scaler
    world.provider.go_away()
    began = time.monotonic()
    assert scaler.close(60.0) == []
    assert time.monotonic() - began < 20
    assert len(scaler.not_ended) == 1
    assert scaler.not_ended[0].startswith(f"end job {world.job_id} of block {world.block} of ex, which may still run: ")
    assert not NoReaper.closed


def test_what_a_job_left_that_ended_by_itself_during_the_close_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler, alive = world.scaler, [True]
    scaler.joined(Joined(world.block, "m", "node", ""))

    def end(_: float) -> None:  # the last turn of the scaling thread, which close() waits for
        scaler._changed(world.block, JobStatus(JobState.COMPLETED))
        alive.clear()

    monkeypatch.setattr(scaler, "_thread", SimpleNamespace(is_alive=lambda: bool(alive), join=end))
    assert scaler.close(30.0) == []
    assert scaler.not_ended == ()
    assert world.provider.cleared == [world.job_id]
