"""AdHocProvider on two hosts with networks of their own, and what happens when the way to one of them is cut."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from provider_services import SERVICES

from flow_providers.adhoc.provider import AdHocProvider
from flow_providers.channels.ssh import SSHChannel
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.job_state import JobState
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


def link(verb: str, host: int) -> None:
    subprocess.run(["bash", SERVICES / "hosts.sh", verb, str(host)], check=True, timeout=20)


class TestTwoHosts(ProviderContract):
    unknown_job = "1:nothing"

    @pytest.fixture
    def provider(self, hosts: dict[str, str], tmp_path: Path) -> Iterator[AdHocProvider]:
        channels = [
            SSHChannel(
                hosts[name],
                username=hosts["HOSTS_TEST_USER"],
                key_filename=hosts["HOSTS_TEST_KEY"],
                known_hosts=hosts["HOSTS_TEST_KNOWN_HOSTS"],
                script_dir=str(tmp_path / name),
                connect_timeout=3,
            )
            for name in ("HOSTS_TEST_FIRST", "HOSTS_TEST_SECOND")
        ]
        provider = AdHocProvider(channels=channels, cmd_timeout=4)
        yield provider
        provider.cancel(provider.find(""))
        provider.close()

    def test_jobs_run_on_both(self, provider: AdHocProvider) -> None:
        jobs = [provider.submit("sleep 1; hostname", 1) for _ in range(2)]
        for job in jobs:
            assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert {provider.tail(job)[0].strip() for job in jobs} == {"flowhost1", "flowhost2"}

    def test_a_way_that_is_cut_for_some_seconds_and_mended_changes_nothing(self, provider: AdHocProvider) -> None:
        first, second = provider.submit("sleep 600", 1), provider.submit("sleep 3; exit 3", 1)
        assert (first[0], second[0]) == ("0", "1")
        with self.surely_ended(provider, [first]):
            for job in (first, second):
                self.until(provider, job, lambda status: status.state is JobState.RUNNING)
            link("cut", 2)
            try:
                one, other = provider.status([first, second])
                assert (one.state, one.message) == (JobState.RUNNING, "")
                assert (other.state, other.message) == (JobState.RUNNING, "its host does not answer now")
                with pytest.raises(SchedulerUnavailable, match=r"does not answer|cannot be reached"):
                    provider.status([second])
                with pytest.raises(SchedulerUnavailable):
                    provider.cancel([second])
            finally:
                link("heal", 2)
            status = self.until_ended(provider, second)
            assert (status.state, status.exit_code) == (JobState.FAILED, 3)
