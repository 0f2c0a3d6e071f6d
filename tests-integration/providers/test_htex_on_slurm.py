"""A workflow of the high-throughput executor on a real Slurm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from htex_workflow import run_workflow

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.launchers import SrunLauncher

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]


def loopback() -> str:
    """Return the address of the submit side, asked for at the start."""
    return "127.0.0.1"


def test_a_workflow_runs_on_two_blocks_of_two_nodes(slurm: dict[str, str], tmp_path: Path, own_ledger: Path) -> None:
    channel = LocalChannel(userhome=str(tmp_path), envs=slurm, script_dir=str(tmp_path / "scripts"))
    provider = SlurmProvider(
        "debug",
        channel=channel,
        nodes_per_block=2,
        init_blocks=2,
        max_blocks=2,
        launcher=SrunLauncher(),
        walltime="00:05:00",
        cmd_timeout=30,
    )
    places = run_workflow(provider, tmp_path, blocks=2, nodes=2, address=loopback)
    assert Counter(block for block, _, _ in places) == {"0": 2, "1": 2}
    left = channel.execute_wait("squeue -h -t PD,R -o %i", 30)
    assert (left.exit_code, left.stdout) == (0, "")
