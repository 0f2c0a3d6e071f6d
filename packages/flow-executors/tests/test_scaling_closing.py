"""The end of an executor whose jobs cannot be ended: waited for some seconds, and told."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flow_executors.scaling.block_jobs import BlockJobs
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.scaler import Scaler
from flow_testing.fake_provider import FakeProvider


class NoReaper:
    closed = False

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def close(self) -> None:
        NoReaper.closed = True


def test_a_host_that_does_not_answer_is_given_up_and_told_and_its_jobs_are_left_to_the_reaper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    monkeypatch.setattr("flow_executors.scaling.block_jobs.ReaperGuardian", NoReaper)
    monkeypatch.setattr("flow_executors.scaling.scaler._SILENT_S", 0.2)
    provider, logger = FakeProvider(), logging.getLogger("test")
    (tmp_path / "run").mkdir()
    context = SimpleNamespace(
        logger=logger, scaling=SimpleNamespace(strategy="none", period_s=5.0, max_idletime_s=120.0)
    )
    scaler = Scaler(SimpleNamespace(label="ex"), provider, context)  # type: ignore[arg-type]
    scaler._jobs = BlockJobs(
        provider, label="ex", run_id="r", run_dir=tmp_path / "run", executor_dir=tmp_path / "run" / "ex", logger=logger
    )
    job_id = scaler._jobs.submit(name := scaler._core.new_block(), BlockOrder("true"))
    scaler._core.submitted(name, job_id, time.monotonic())
    provider.go_away()
    began = time.monotonic()
    assert scaler.close(60.0) == []
    assert time.monotonic() - began < 20
    assert len(scaler.not_ended) == 1
    assert scaler.not_ended[0].startswith(f"end job {job_id} of block {name} of ex, which may still run: ")
    assert not NoReaper.closed
