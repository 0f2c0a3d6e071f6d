"""A host of a collection that is gone for good: the jobs on the others are not left behind for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flow_providers.adhoc.provider import AdHocProvider
from flow_providers.channels.local import LocalChannel
from flow_providers.errors import ChannelUnavailable, SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_state import JobState
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.sweep import sweep


class Host(LocalChannel):
    """A host that can be cut off."""

    away = False

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        if self.away:
            raise ChannelUnavailable("no route to it")
        return super().execute_wait(cmd, walltime, envs)


def test_jobs_of_the_hosts_that_answer_are_cancelled_and_the_others_stay_in_the_ledger(tmp_path: Path) -> None:
    hosts = [Host(script_dir=str(tmp_path / name)) for name in ("one", "two")]
    provider = AdHocProvider(channels=hosts)
    ledger = JobLedger(tmp_path / "jobs.ledger")
    accounted = AccountedProvider(provider, ledger, run_id="run", owner="me")
    here, there = accounted.submit("sleep 600", 1), accounted.submit("sleep 600", 1)
    try:
        hosts[1].away = True
        with pytest.raises(SchedulerUnavailable, match="no route to it") as caught:
            sweep(provider, ledger, ledger.open_entries())
        assert caught.value.found == (here,)
        assert provider.status([here])[0].state is JobState.CANCELLED
        assert [entry.job_id for entry in ledger.open_entries()] == [there]
        hosts[1].away = False
        assert sweep(provider, ledger, ledger.open_entries()) == []
        assert provider.status([there])[0].state is JobState.CANCELLED
        assert ledger.open_entries() == []
    finally:
        hosts[1].away = False
        provider.cancel([here, there])
