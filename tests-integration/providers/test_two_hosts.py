"""AdHocProvider on two hosts with networks of their own, and what happens when the way to one of them is cut."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from provider_services import host_channels, link_cut

from flow_providers.adhoc.provider import AdHocProvider
from flow_providers.channels.ssh import SSHChannel
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.job_state import JobState
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]

CUT_S = 30


class TestTwoHosts(ProviderContract):
    unknown_job = "1:nothing"

    @pytest.fixture
    def provider(self, hosts: dict[str, str], tmp_path: Path) -> Iterator[AdHocProvider]:
        provider = AdHocProvider(channels=host_channels(hosts, tmp_path, connect_timeout=3), cmd_timeout=4)
        yield provider
        provider.cancel(provider.find(""))
        provider.close()

    @pytest.fixture
    def other_way(self, hosts: dict[str, str], tmp_path: Path) -> Iterator[SSHChannel]:
        """Give a connection to the second host that only the test uses."""
        channel = host_channels(hosts, tmp_path)[1]
        yield channel
        channel.close()

    def test_jobs_run_on_both(self, provider: AdHocProvider) -> None:
        jobs = [provider.submit("sleep 1; hostname", 1) for _ in range(2)]
        for job in jobs:
            assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert {provider.tail(job)[0].strip() for job in jobs} == {"flowhost1", "flowhost2"}

    def test_a_way_that_is_cut_for_half_a_minute_and_mended_changes_nothing(
        self, provider: AdHocProvider, other_way: SSHChannel, tmp_path: Path
    ) -> None:
        self.patience_s = 90
        first, second = provider.submit("sleep 600", 1), provider.submit("sleep 5; exit 3", 1)
        assert (first[0], second[0]) == ("0", "1")
        with self.surely_ended(provider, [first]), ThreadPoolExecutor(1) as pool:
            for job in (first, second):
                self.until(provider, job, lambda status: status.state is JobState.RUNNING)
            left_alone = other_way.execute_no_wait("sleep 5; exit 5")
            begun = tmp_path / "begun"
            waited_for = pool.submit(other_way.execute_wait, f": >{begun}; sleep 5; echo through", 150)
            self.patiently(lambda: [begun] if begun.exists() else [])
            with link_cut(2, CUT_S) as countdown:
                for _ in countdown:
                    one, other = provider.status([first, second])
                    assert (one.state, one.message) == (JobState.RUNNING, "")
                    assert (other.state, other.message) == (JobState.RUNNING, "its host does not answer now")
                    assert provider.current_capacity == 2
                with pytest.raises(SchedulerUnavailable, match=r"does not answer|cannot be reached"):
                    provider.status([second])
                with pytest.raises(SchedulerUnavailable):
                    provider.cancel([second])
                assert not waited_for.done()
            status = self.until_ended(provider, second)
            assert (status.state, status.exit_code) == (JobState.FAILED, 3)
            assert tuple(waited_for.result(timeout=100)) == (0, "through\n", "")
            assert left_alone.wait(60) == 5
            assert provider.cancel([first]) == [True]
