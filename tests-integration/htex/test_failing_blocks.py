"""While blocks of a real provider fail, a task that waits for them tells what they wrote last."""

from __future__ import annotations

from pathlib import Path

import pytest

import flow
from flow_executors.testing.local_run import wait_until
from flow_providers.local.provider import LocalProvider


@pytest.mark.parametrize("kind", [flow.HighThroughputExecutor, flow.LowLatencyExecutor])
def test_the_last_line_of_a_failed_block_is_told_while_others_are_tried(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    provider = LocalProvider(
        init_blocks=1, max_blocks=1, worker_init="echo words >&2; echo the module is missing >&2; exit 3"
    )
    # goes on trying: then why() is asked between two attempts
    executor = kind("bad", max_workers=1, provider=provider, block_error_handler=lambda _host, _failed: None)
    with flow.load(flow.Config(executors=[executor], run_dir=tmp_path, strategy_period=0.1)):
        future = flow.python_app(lambda: 1)()
        wait_until(lambda: "the module is missing" in future.why().line, "the block's last line is not told", 30)
        assert "ended with 'the module is missing'" in future.why().line
        assert "(its last line of standard error: the module is missing)" in caplog.text
        future.cancel()
