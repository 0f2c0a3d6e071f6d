"""A workflow of the high-throughput executor on a real Grid Engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from htex_workflow import run_workflow

from flow_executors.testing.node import until
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.gridengine.provider import GridEngineProvider

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]


def test_a_workflow_runs_on_two_blocks(gridengine: dict[str, str], tmp_path: Path, own_ledger: Path) -> None:
    channel = LocalChannel(userhome=str(tmp_path), envs=gridengine, script_dir=str(tmp_path / "scripts"))
    provider = GridEngineProvider(channel=channel, init_blocks=2, max_blocks=2, walltime="00:05:00")
    places = run_workflow(provider, tmp_path, blocks=2, nodes=1, address="127.0.0.1")
    assert {block for block, _, _ in places} == {"0", "1"}
    until(lambda: provider.find("") == [], "the jobs that were deleted leave the queue")
