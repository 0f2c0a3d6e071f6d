"""A scheduler's daemon that is stopped for twenty seconds in the middle of everything."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.gridengine.provider import GridEngineProvider
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.errors import SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.interfaces.job_state import JobState
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]

OUTAGE_S = 20


@contextmanager
def stopped(pid_file: Path, start_again: list[str], environment: dict[str, str]) -> Iterator[float]:
    """End a daemon; give the time since when it is gone; start it again."""
    daemon = psutil.Process(int(pid_file.read_text()))
    daemon.send_signal(signal.SIGTERM)
    gone = time.monotonic() + 30
    while daemon.is_running() and daemon.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < gone, "the daemon does not end"
        time.sleep(0.05)
    try:
        yield time.monotonic()
    finally:
        subprocess.run(start_again, env=environment, check=True, timeout=50, capture_output=True)


def go_through_it(provider: ClusterProvider, pid_file: Path, daemon: str, variables: dict[str, str]) -> None:
    contract = ProviderContract()
    contract.patience_s = 100
    environment = {**os.environ, **variables}
    lasting, ending = provider.submit("sleep 600", 1), provider.submit("sleep 6; exit 3", 1)
    try:
        for job in (lasting, ending):
            contract.until(provider, job, lambda status: status.state is JobState.RUNNING)
        provider.cmd_timeout = 5
        with stopped(pid_file, [daemon], environment) as since:
            with pytest.raises((SubmitException, SubmitUnknown)):
                provider.submit("true", 1)
            while time.monotonic() < since + OUTAGE_S:
                with pytest.raises(SchedulerUnavailable, match=r"does not answer|failed"):
                    provider.status([lasting, ending])
                time.sleep(0.5)
            assert provider.current_capacity == 2  # nothing is given up for lost
        provider.cmd_timeout = 30
        status = contract.until_ended(provider, ending)
        assert (status.state, status.exit_code) == (JobState.FAILED, 3)
        assert contract.until(provider, lasting, lambda status: True).state is JobState.RUNNING
        after = provider.submit("true", 1)
        assert contract.until_ended(provider, after).state is JobState.COMPLETED
    finally:
        provider.cancel([lasting, ending])


def test_jobs_of_slurm_live_through_it(slurm: dict[str, str], tmp_path: Path) -> None:
    channel = LocalChannel(userhome=str(tmp_path), envs=slurm, script_dir=str(tmp_path / "scripts"))
    provider = SlurmProvider("debug", channel=channel, exclusive=False)
    go_through_it(provider, Path(slurm["SLURM_CONF"]).parent / "slurmctld.pid", "slurmctld", slurm)


def test_jobs_of_grid_engine_live_through_it(gridengine: dict[str, str], tmp_path: Path) -> None:
    channel = LocalChannel(userhome=str(tmp_path), envs=gridengine, script_dir=str(tmp_path / "scripts"))
    provider = GridEngineProvider(channel=channel)
    pid_file = Path(gridengine["SGE_ROOT"]).parent / "spool/qmaster/qmaster.pid"
    go_through_it(provider, pid_file, "sge_qmaster", gridengine)
