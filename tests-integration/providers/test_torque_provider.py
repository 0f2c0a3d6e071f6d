"""TorqueProvider on real qsub, qstat and qdel of the Torque kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.torque.provider import TorqueProvider
from flow_providers.errors import SubmitException
from flow_providers.interfaces.job_state import JobState
from flow_providers.launchers import SingleNodeLauncher
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def channel(torque: dict[str, str], tmp_path: Path) -> LocalChannel:
    return LocalChannel(userhome=str(tmp_path), envs=torque, script_dir=str(tmp_path / "scripts"))


@pytest.fixture
def provider(channel: LocalChannel) -> Iterator[TorqueProvider]:
    provider = TorqueProvider(channel=channel, launcher=SingleNodeLauncher())
    provider.fresh_s = 0.2
    yield provider
    provider.cancel(provider.find(""))


class TestTorqueProvider(ProviderContract):
    @pytest.fixture
    def provider(self, provider: TorqueProvider) -> TorqueProvider:  # type: ignore[override]  # narrowed
        return provider

    def test_a_job_that_cannot_run_waits(self, channel: LocalChannel) -> None:
        provider = TorqueProvider(channel=channel, nodes_per_block=9)
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            assert self.until(provider, job, lambda status: bool(status.reason)).state is JobState.PENDING

    def test_nodes_and_cores_are_asked_for_and_told(self, channel: LocalChannel) -> None:
        provider = TorqueProvider(channel=channel, nodes_per_block=2, cores_per_node=4, launcher=SingleNodeLauncher())
        job = provider.submit("echo $FLOW_CORES $SLURM_JOB_NUM_NODES $SLURM_NTASKS", 1)
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert self.output_with(provider, job, "\n") == "4 2 8\n"

    def test_a_running_job_tells_its_nodes(self, channel: LocalChannel) -> None:
        provider = TorqueProvider(channel=channel, launcher=SingleNodeLauncher())
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            assert len(self.until(provider, job, lambda status: bool(status.nodes)).nodes) == 1

    def test_a_wrong_queue_is_refused_in_the_schedulers_words(self, channel: LocalChannel) -> None:
        provider = TorqueProvider(channel=channel, queue="nowhere")
        with pytest.raises(SubmitException, match="nowhere"):
            provider.submit("true", 1)
