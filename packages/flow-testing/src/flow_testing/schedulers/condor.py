"""The commands of HTCondor, in the shape of HTCondor 10."""

from __future__ import annotations

import json
import socket

from flow_providers.interfaces.job_state import JobState
from flow_testing.schedulers.command import Called, CommandAnswer
from flow_testing.schedulers.scheduler import FakeScheduler, Row

_NUMBERS = {JobState.PENDING: 1, JobState.RUNNING: 2, JobState.HELD: 5}
_LONG_NUMBERS = {JobState.RUNNING: 6}  # transferring output
_ENDED, _REMOVED = 4, 3  # HTCondor's numbers of states


def simulate(scheduler: FakeScheduler, called: Called) -> CommandAnswer:
    """Answer one call of a command of HTCondor; a call that it would refuse has an exit code other than 0."""
    answer = CommandAnswer()
    if scheduler.is_away(called.program):
        words = "-- Failed to fetch ads from: <127.0.0.1:9618> : SECMAN:2007:Failed to connect"
        return answer.complain(words, 1)
    if scheduler.variant.chatty:
        answer.complain("WARNING: maintenance on Tuesday")
    if called.program == "condor_submit":
        return _submit(scheduler, called, answer)
    words_of = called.arguments
    if called.program == "condor_rm":
        return _rm(scheduler, [int(word) for word in words_of], answer)
    # Ids stand before the option -json; numbers after it belong to -limit.
    ids = [int(word) for word in words_of[: words_of.index("-json")] if word.isdecimal()]
    # The history has jobs that the queue has forgotten.
    everybody = scheduler.rows(ids or None, forgotten=called.program == "condor_history")
    rows = [row for row in everybody if called.program == "condor_q" or row.state.terminal]
    ads = [_advertisement(row, scheduler) for row in rows]
    if scheduler.variant.arrays:
        # Processes of somebody else's cluster, in seven states.
        ads = [{"ClusterId": 8, "ProcId": i, "JobStatus": i % 7, "JobBatchName": "arr"} for i in range(2, 9)] + ads
    if ads:  # an empty queue prints nothing at all
        answer.say(json.dumps(ads, indent=1))
    return answer


def _submit(scheduler: FakeScheduler, called: Called, answer: CommandAnswer) -> CommandAnswer:
    text = called.text_of(called.arguments[-1])
    given = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
    if given.get("+Queue") == '"nowhere"':
        return answer.complain("ERROR: Unknown queue", 1)
    script = called.text_of(given["executable"])
    held = given.get("hold") == "true"
    row = scheduler.submit(script, given["batch_name"], given["output"], given["error"], called.cwd, held)
    answer.say(f"Submitting job(s).\n1 job(s) submitted to cluster {row.number}.")
    return answer


def _advertisement(row: Row, scheduler: FakeScheduler) -> dict[str, object]:
    numbers = {**_NUMBERS, **(_LONG_NUMBERS if scheduler.variant.long_states else {})}
    ad: dict[str, object] = {
        "ClusterId": row.number,
        "ProcId": 0,
        "JobStatus": _REMOVED if row.cancelled else numbers.get(row.state, _ENDED),
        "JobBatchName": row.name,
    }
    if scheduler.variant.wide:
        ad["Requirements"] = '(TARGET.Arch == "X86_64") && ' * 50
    if row.state is JobState.HELD:
        ad["HoldReason"] = "submitted on hold at user's request"
    if row.state.terminal and not row.cancelled:
        ad.update(ExitCode=row.exit_code, ExitBySignal=False)
    if row.state is JobState.RUNNING:
        ad.update(RemoteHost=f"slot1@{socket.gethostname()}", JobCurrentStartDate=int(row.started_at or 0))
    return ad


def _rm(scheduler: FakeScheduler, numbers: list[int], answer: CommandAnswer) -> CommandAnswer:
    for number in numbers:
        if scheduler.cancel(number):
            answer.say(f"All jobs in cluster {number} have been marked for removal")
        else:
            answer.complain(f"Couldn't find/remove all jobs in cluster {number}", 1)
    return answer
