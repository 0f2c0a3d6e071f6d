"""SlurmProvider on a Slurm with accounting that soon forgets jobs: what left the queue is known to sacct."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from provider_services import service

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.interfaces.job_state import JobState
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(200)]


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[LocalChannel]:
    with service("slurmdbd", "slurmdbd") as variables:
        yield LocalChannel(userhome=str(tmp_path), envs=variables, script_dir=str(tmp_path / "scripts"))


def test_jobs_that_the_queue_forgot_are_found_and_a_job_is_ended_at_its_walltime(channel: LocalChannel) -> None:
    # one test, since Slurm takes more than a minute for each: it counts whole minutes, and forgets once in a minute
    contract = ProviderContract()
    contract.patience_s, contract.poll_s = 150, 0.5
    provider = SlurmProvider("debug", channel=channel, exclusive=False, walltime="00:01:00")
    failed, cancelled = provider.submit("exit 5", 1), provider.submit("sleep 600", 1)
    too_long = provider.submit("sleep 600", 1)
    assert provider.cancel([cancelled]) == [True]
    assert contract.until_ended(provider, too_long).state is JobState.TIMEOUT

    def in_queue() -> str:
        return channel.execute_wait(f"squeue -h -t all -o %A -j {failed},{cancelled},{too_long}", 30).stdout

    contract.patiently(lambda: [] if in_queue() else [True])
    heir = SlurmProvider("debug", channel=channel)  # it never heard of them, and knows none of their files
    states = [(status.state, status.exit_code) for status in heir.status([failed, cancelled, too_long, "4242"])]
    assert [state for state, _ in states] == [
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.TIMEOUT,
        JobState.MISSING,
    ]
    assert states[0][1] == 5
