"""What others import of this distribution, and how it answers who misuses it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import flow_testing
from flow_providers import JobState
from flow_providers.errors import SchedulerUnavailable, SubmitException
from flow_testing import FakeProvider, SimulatedScheduler
from flow_testing.schedulers.simulated import COMMANDS


@pytest.mark.parametrize("name", flow_testing.__all__)
def test_every_public_name_is_there_without_the_clients_of_clouds(name: str) -> None:
    assert getattr(flow_testing, name) is not None
    assert name in dir(flow_testing)


@pytest.mark.parametrize(
    ("kind", "command", "answer"),
    [
        ("cobalt", "qdel 9", "No jobs found matching: 9"),
        ("condor", "condor_rm 9", "in cluster 9"),
        ("lsf", "bkill 9", "Job <9>"),
        ("pbspro", "qdel 9", "Unknown Job Id 9"),
        ("condor", "condor_q 9", "not simulated"),
        ("pbspro", "qsub nowhere.sh", "No such file"),
    ],
)
def test_the_commands_of_a_simulated_scheduler_are_programs_that_answer(
    kind: str, command: str, answer: str, tmp_path: Path
) -> None:
    with SimulatedScheduler(kind, tmp_path / kind) as scheduler:
        assert sorted(path.name for path in scheduler.programs.iterdir()) == sorted(COMMANDS[kind])
        program, *arguments = command.split()
        done = subprocess.run(
            [scheduler.programs / program, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert answer in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode != 0


def test_a_scheduler_that_cannot_be_simulated_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no simulation of 'slurm': there are cobalt, condor, lsf, pbspro"):
        SimulatedScheduler("slurm", tmp_path / "slurm")
    assert not (tmp_path / "slurm").exists()


def test_a_fake_provider_does_what_the_test_says() -> None:
    provider = FakeProvider()
    provider.fail_submits(SubmitException("full", "", ""))
    with pytest.raises(SubmitException):
        provider.submit("true", 1)
    job = provider.submit("true", 1)
    provider.move(job, JobState.RUNNING)
    provider.go_away()
    with pytest.raises(SchedulerUnavailable):
        provider.status([job])
    provider.go_away(False)
    provider.refuse_cancel(job)
    assert provider.cancel([job]) == [False]
    assert provider.status([job])[0].state is JobState.RUNNING
