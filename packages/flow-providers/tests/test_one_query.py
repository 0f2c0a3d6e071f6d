"""The states of a thousand jobs are one query of the scheduler, and asking again at once is none."""

from __future__ import annotations

from collections.abc import Mapping

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_state import JobState


class CountingChannel(LocalChannel):
    """Answers as squeue does, and counts."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.commands: list[str] = []

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        self.commands.append(cmd)
        return CommandResult(0, self.answer, "")


def test_a_thousand_jobs_are_one_query() -> None:
    jobs = [str(number) for number in range(1, 1001)]
    channel = CountingChannel("".join(f"{job}|PENDING|0:0|N/A|N/A||Priority|\n" for job in jobs))
    provider = SlurmProvider("debug", channel=channel)
    for _ in range(3):
        assert {status.state for status in provider.status(jobs)} == {JobState.PENDING}
    assert len(channel.commands) == 1
