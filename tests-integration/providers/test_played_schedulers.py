"""Providers of schedulers that nobody can install, on programs that play their commands with a quirk each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.condor.provider import CondorProvider
from flow_providers.cluster.lsf.provider import LSFProvider
from flow_providers.cluster.pbspro.provider import PBSProProvider
from flow_providers.errors import SubmitException
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.testing.contract import ProviderContract
from flow_providers.testing.fakes.faces import install_commands
from flow_providers.testing.fakes.scheduler import FakeScheduler, Quirks

pytestmark = pytest.mark.timeout(120)

HOLD = {"pbspro": "#PBS -h", "lsf": "#BSUB -H", "condor": "hold = true"}

NOWHERE = {
    "pbspro": {"queue": "nowhere"},
    "lsf": {"queue": "nowhere"},
    "condor": {"scheduler_options": '+Queue = "nowhere"'},
}


def play(face: str, tmp_path: Path, quirks: Quirks, **options: object) -> ExecutionProvider:
    programs = tmp_path / face / "bin"
    if not programs.exists():
        install_commands(face, tmp_path / face, quirks)
    channel = LocalChannel(
        userhome=str(tmp_path),
        envs={"PATH": f"{programs}:{os.environ['PATH']}"},
        script_dir=str(tmp_path / "scripts"),
    )
    kind = {"pbspro": PBSProProvider, "lsf": LSFProvider, "condor": CondorProvider}[face]
    return kind(channel=channel, cmd_timeout=30, **options)  # type: ignore[arg-type]  # checked by the constructor


class PlayedContract(ProviderContract):
    face: str
    quirks = Quirks()

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[ExecutionProvider]:
        yield play(self.face, tmp_path, self.quirks)
        scheduler = FakeScheduler(str(tmp_path / self.face / "state"))
        for row in scheduler.rows():
            scheduler.cancel(row.number)

    def test_a_held_job_is_held(self, tmp_path: Path) -> None:
        provider = play(self.face, tmp_path, Quirks(), scheduler_options=HOLD[self.face])
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            assert self.until(provider, job, lambda status: bool(status.reason)).state is JobState.HELD

    def test_a_wrong_queue_is_refused_in_the_schedulers_words(self, tmp_path: Path) -> None:
        with pytest.raises(SubmitException, match=r"Unknown queue|No such queue"):
            play(self.face, tmp_path, Quirks(), **NOWHERE[self.face]).submit("true", 1)


class TestPBSProThatChats(PlayedContract):
    face = "pbspro"
    quirks = Quirks(chatty=True)


class TestLSFThatForgetsAndStartsLate(PlayedContract):
    face = "lsf"
    quirks = Quirks(forgets=True, starts_late_s=0.3)


class TestCondorThatForgetsAndChats(PlayedContract):
    face = "condor"
    quirks = Quirks(forgets=True, chatty=True)


@pytest.mark.parametrize("face", ["pbspro", "lsf", "condor"])
def test_a_scheduler_that_is_often_away_loses_no_job(face: str, tmp_path: Path) -> None:
    contract = ProviderContract()
    provider = play(face, tmp_path, Quirks(away_every=3))
    jobs = [provider.submit("exit 4", 1) for _ in range(3)]
    assert [contract.until_ended(provider, job).exit_code for job in jobs] == [4, 4, 4]
