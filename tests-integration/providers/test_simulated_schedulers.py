"""Providers of schedulers that nobody can install, on programs that simulate their commands, well and badly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.cobalt.provider import CobaltProvider
from flow_providers.cluster.condor.provider import CondorProvider
from flow_providers.cluster.lsf.provider import LSFProvider
from flow_providers.cluster.pbspro.provider import PBSProProvider
from flow_providers.errors import SubmitException
from flow_providers.interfaces.job_state import JobState
from flow_providers.launchers import SingleNodeLauncher
from flow_providers.testing.contract import ProviderContract
from flow_testing.schedulers.simulated import SimulatedScheduler
from flow_testing.schedulers.variant import PROFILES, SchedulerVariant

pytestmark = pytest.mark.timeout(120)

KINDS = {"cobalt": CobaltProvider, "condor": CondorProvider, "lsf": LSFProvider, "pbspro": PBSProProvider}
HOLD = {"cobalt": "#COBALT -h", "condor": "hold = true", "lsf": "#BSUB -H", "pbspro": "#PBS -h"}
NOWHERE: dict[str, dict[str, object]] = {
    "cobalt": {"queue": "nowhere"},
    "condor": {"scheduler_options": '+Queue = "nowhere"'},
    "lsf": {"queue": "nowhere"},
    "pbspro": {"queue": "nowhere"},
}
Start = Callable[..., ClusterProvider]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a scheduler, once, and makes a provider of it."""
    started: list[SimulatedScheduler] = []

    def start(kind: str, variant: SchedulerVariant = PROFILES["plain"], **options: object) -> ClusterProvider:
        if not started:
            started.append(SimulatedScheduler(kind, tmp_path / kind, variant))
        path = f"{started[0].programs}:{os.environ['PATH']}"
        channel = LocalChannel(userhome=str(tmp_path), envs={"PATH": path}, script_dir=str(tmp_path / "scripts"))
        given = {"channel": channel, "cmd_timeout": 30, "launcher": SingleNodeLauncher(), **options}
        provider: ClusterProvider = KINDS[kind](**given)  # type: ignore[arg-type]  # checked by the constructor
        provider.fresh_s = provider.pause_s = 0.05
        return provider

    yield start
    for scheduler in started:
        scheduler.close()


class SimulatedContract(ProviderContract):
    kind: str
    variant = SchedulerVariant()
    poll_s = 0.05

    @pytest.fixture
    def provider(self, start: Start) -> ClusterProvider:
        return start(self.kind, self.variant)

    def test_a_held_job_is_held(self, start: Start) -> None:
        provider = start(self.kind, scheduler_options=HOLD[self.kind])
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            assert self.until(provider, job, lambda status: bool(status.reason)).state is JobState.HELD

    def test_a_job_tells_where_its_output_is(self, provider: ClusterProvider) -> None:
        status = self.until_ended(provider, provider.submit("echo out; echo oh >&2", 1))
        assert Path(status.stdout_path or "").read_text() == "out\n"
        assert Path(status.stderr_path or "").read_text() == "oh\n"

    def test_a_wrong_queue_is_refused_in_the_schedulers_words(self, start: Start) -> None:
        with pytest.raises(SubmitException, match=r"Unknown queue|No such queue"):
            start(self.kind, **NOWHERE[self.kind]).submit("true", 1)


class TestCobaltThatChatsAmongWideColumns(SimulatedContract):
    kind = "cobalt"
    variant = SchedulerVariant(chatty=True, wide=True, arrays=True)


class TestPBSProThatChatsAmongArrays(SimulatedContract):
    kind = "pbspro"
    variant = SchedulerVariant(chatty=True, arrays=True, wide=True)


class TestLSFThatForgetsAndStartsLate(SimulatedContract):
    kind = "lsf"
    variant = SchedulerVariant(forgets=True, starts_late_s=0.3, wide=True)


class TestCondorThatForgetsAndChats(SimulatedContract):
    kind = "condor"
    variant = SchedulerVariant(forgets=True, chatty=True, arrays=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "plain"])  # the contract's own
class TestEveryProfile:
    def test_no_job_is_lost_or_taken_for_another(self, start: Start, kind: str, profile: str) -> None:
        contract = ProviderContract()
        contract.poll_s = 0.05
        provider = start(kind, PROFILES[profile])
        jobs = [provider.submit(f"exit {code}", 1) for code in (4, 0)]
        jobs.append(provider.submit("sleep 600", 1))
        with contract.surely_ended(provider, [] if PROFILES[profile].away_every else jobs[2:]):
            assert contract.until_ended(provider, jobs[0]).exit_code == 4
            assert contract.until_ended(provider, jobs[1]).state is JobState.COMPLETED
            running = contract.until(provider, jobs[2], lambda status: status.state is JobState.RUNNING)
            assert not running.terminal


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_the_scheduler_lost_is_missing(start: Start, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterProvider, "missing_after_s", 0.3)
    contract = ProviderContract()
    provider = start(kind, SchedulerVariant(loses_every=2))
    kept, lost = (provider.submit("exit 2", 1) for _ in range(2))
    assert contract.until_ended(provider, lost).state is JobState.MISSING
    assert contract.until_ended(provider, kept).exit_code == 2
    assert provider.current_capacity == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_states_of_a_thousand_jobs_are_one_query(tmp_path: Path, kind: str) -> None:
    with SimulatedScheduler(kind, tmp_path / kind, SchedulerVariant(starts_late_s=3600)) as simulated:
        path = f"{simulated.programs}:{os.environ['PATH']}"
        channel = LocalChannel(userhome=str(tmp_path), envs={"PATH": path}, script_dir=str(tmp_path))
        provider = KINDS[kind](channel=channel)
        jobs = [
            str(simulated.scheduler.submit("true", "name", "/dev/null", "/dev/null", str(tmp_path)).number)
            + (".pbs" if kind == "pbspro" else "")
            for _ in range(1000)
        ]
        states = {status.state for status in provider.status(jobs)}
        assert (states, len(simulated.scheduler.commands)) == ({JobState.PENDING}, 1)
