"""Commands of a scheduler that fail without an answer: no state changes, and no job counts as cancelled."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import flow_providers
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.base import ClusterProvider
from flow_providers.errors import SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.job_state import JobState

KINDS = [
    "CobaltProvider", "CondorProvider", "GridEngineProvider", "LSFProvider", "PBSProProvider", "SlurmProvider",
    "TorqueProvider",
]  # fmt: skip
SILENCES = {
    "not installed": CommandResult(127, "", "/bin/sh: 1: the-command: not found\n"),
    "not executable": CommandResult(126, "", "/bin/sh: 1: the-command: Permission denied\n"),
    "killed": CommandResult(137, "", ""),
    "garbage": CommandResult(2, "\0\1 <?xm {[", "Segmentation fault\n"),
    "some library is missing": CommandResult(1, "", "error while loading shared libraries: libmunge.so.2\n"),
}


class SaysOne(LocalChannel):
    """Answers every command in the same way."""

    def __init__(self, answer: CommandResult, script_dir: str) -> None:
        super().__init__(script_dir=script_dir)
        self.answer = answer

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        return self.answer


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[ClusterProvider]:
    found: type[ClusterProvider] = getattr(flow_providers, request.param)
    return found


def provider_that_hears(kind: type[ClusterProvider], answer: CommandResult, folder: object) -> ClusterProvider:
    provider = kind(channel=SaysOne(answer, str(folder)))  # type: ignore[call-arg]  # all have a channel
    provider.pause_s = 0
    return provider


@pytest.mark.parametrize("silence", SILENCES)
def test_nothing_is_known_of_any_job(kind: type[ClusterProvider], silence: str, tmp_path: object) -> None:
    provider = provider_that_hears(kind, SILENCES[silence], tmp_path)
    with pytest.raises(SchedulerUnavailable):
        provider.status(["17", "18"])
    with pytest.raises(SchedulerUnavailable):
        provider.cancel(["17", "18"])
    with pytest.raises(SchedulerUnavailable):
        provider.find("f")


@pytest.mark.parametrize("silence", [name for name in SILENCES if name != "killed"])
def test_a_submission_is_refused_in_the_words_that_were_said(
    kind: type[ClusterProvider], silence: str, tmp_path: object
) -> None:
    answer = SILENCES[silence]
    provider = provider_that_hears(kind, answer, tmp_path)
    with pytest.raises(SubmitException) as caught:
        provider.submit("true", 1)
    assert not isinstance(caught.value, SubmitUnknown)
    assert answer.stderr.strip() in str(caught.value)
    assert provider.current_capacity == 0


@pytest.mark.parametrize("answer", [CommandResult(0, "", ""), SILENCES["killed"]], ids=["no id", "killed"])
def test_of_a_submission_that_printed_no_id_nobody_knows_whether_it_was_taken(
    kind: type[ClusterProvider], answer: CommandResult, tmp_path: object
) -> None:
    with pytest.raises(SubmitUnknown):
        provider_that_hears(kind, answer, tmp_path).submit("true", 1)


def test_a_job_is_not_submitted_again_when_the_scheduler_took_it_and_went_away(tmp_path: object) -> None:
    commands = []

    class TakesAndGoes(SaysOne):
        def execute_wait(
            self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
        ) -> CommandResult:
            commands.append(cmd.split()[0])
            if cmd.startswith("sbatch"):
                return CommandResult(1, "", "sbatch: error: Socket timed out on send/recv operation\n")
            return CommandResult(0, "17|fabc.flow.auto\n", "")

    provider = flow_providers.SlurmProvider(channel=TakesAndGoes(CommandResult(0, "", ""), str(tmp_path)))
    provider.pause_s = 0
    assert provider.submit("true", 1, extras=JobExtras(tag="fabc")) == "17"
    assert commands == ["sbatch", "squeue"]


def test_an_empty_answer_is_no_end_of_a_job_that_was_just_submitted(
    kind: type[ClusterProvider], tmp_path: object
) -> None:
    provider = provider_that_hears(kind, CommandResult(0, '<?xml version="1.0"?><job_info/>', ""), tmp_path)
    with provider._lock:
        provider._tracker.submitted("17")
    assert provider.status(["17"])[0].state is JobState.PENDING


GONE = {
    "CobaltProvider": CommandResult(1, "", "No jobs found matching: 17\n"),
    "CondorProvider": CommandResult(1, "", "Couldn't find/remove all jobs in cluster 17\n"),
    "GridEngineProvider": CommandResult(1, 'denied: job "17" does not exist\n', ""),
    "LSFProvider": CommandResult(255, "", "Job <17>: No matching job found\n"),
    "PBSProProvider": CommandResult(153, "", "qdel: Unknown Job Id 17.server\n"),
    "SlurmProvider": CommandResult(1, "", "scancel: error: Kill job error on job id 17: Invalid job id specified\n"),
    "TorqueProvider": CommandResult(153, "", "qdel: Unknown Job Id 17.server\n"),
}
REFUSED = {
    "CobaltProvider": CommandResult(1, "", "job 17 is not owned by you\n"),
    "CondorProvider": CommandResult(1, "", "Permission denied for cluster 17\n"),
    "GridEngineProvider": CommandResult(1, 'me - you do not have the necessary privileges: denied: job "17"\n', ""),
    "LSFProvider": CommandResult(255, "", "Job <17>: User permission denied\n"),
    "PBSProProvider": CommandResult(159, "", "qdel: Unauthorized Request 17\n"),
    "SlurmProvider": CommandResult(1, "", "scancel: error: Kill job error on job id 17: Access/permission denied\n"),
    "TorqueProvider": CommandResult(159, "", "qdel: Unauthorized Request 17\n"),
}


@pytest.mark.parametrize("name", ["PBSProProvider", "TorqueProvider"])
def test_a_qdel_that_fails_without_a_word_is_believed_when_qstat_answers(name: str, tmp_path: object) -> None:
    class Qdel(SaysOne):
        def execute_wait(
            self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
        ) -> CommandResult:
            return CommandResult(245, "", "") if cmd.startswith("qdel") else self.answer

    unknown = CommandResult(153, "", "qstat: Unknown Job Id 17.server\n")
    for answer in (unknown, SILENCES["garbage"], SILENCES["not installed"]):
        provider = getattr(flow_providers, name)(channel=Qdel(answer, str(tmp_path)))
        if answer is unknown:
            assert provider.cancel(["17.server"]) == [True]
        else:
            with pytest.raises(SchedulerUnavailable):
                provider.cancel(["17.server"])


def test_a_job_that_is_gone_counts_as_cancelled_and_one_that_was_refused_does_not(
    kind: type[ClusterProvider], tmp_path: object
) -> None:
    for answers, gone in ((GONE, True), (REFUSED, False)):
        assert provider_that_hears(kind, answers[kind.__name__], tmp_path).cancel(["17"]) == [gone]
