"""The commands of LSF, in the shape of LSF 10.1."""

from __future__ import annotations

import json
import socket

from flow_providers.interfaces.job_state import JobState
from flow_testing.schedulers.command import Called, CommandAnswer, directive
from flow_testing.schedulers.scheduler import FakeScheduler, Row

_WORDS = {JobState.PENDING: "PEND", JobState.HELD: "PSUSP", JobState.RUNNING: "RUN", JobState.COMPLETED: "DONE"}
# States that are seldom seen, for the quirk long_states.
_LONG_WORDS = {JobState.PENDING: "PROV", JobState.RUNNING: "SSUSP"}


def simulate(scheduler: FakeScheduler, called: Called) -> CommandAnswer:
    """Answer one call of ``bsub``, ``bjobs`` or ``bkill``; one that LSF would refuse has an exit code other than 0."""
    answer = CommandAnswer()
    if scheduler.is_away(called.program):
        return answer.complain("LSF is down. Please wait ...", 255)
    if scheduler.variant.chatty:
        answer.complain("Notice: maintenance on Tuesday")
    if called.program == "bsub":
        return _bsub(scheduler, called, answer)
    ids = [word for word in called.arguments if word.isdecimal()]
    return _bkill(scheduler, ids, answer) if called.program == "bkill" else _bjobs(scheduler, called, ids, answer)


def _bsub(scheduler: FakeScheduler, called: Called, answer: CommandAnswer) -> CommandAnswer:
    script = called.stdin
    queue = directive(script, "BSUB", "-q") or "normal"
    if queue == "nowhere":
        return answer.complain("nowhere: No such queue. Job not submitted.", 255)
    out, err, name = (directive(script, "BSUB", option) for option in ("-o", "-e", "-J"))
    row = scheduler.submit(script, name, out, err, called.cwd, "#BSUB -H" in script)
    if scheduler.variant.chatty:
        answer.say("Checking quotas ... passed")
    answer.say(f"Job <{row.number}> is submitted to queue <{queue}>.")
    return answer


def _bjobs(scheduler: FakeScheduler, called: Called, ids: list[str], answer: CommandAnswer) -> CommandAnswer:
    options = called.arguments
    rows = scheduler.rows([int(job_id) for job_id in ids] if ids else None)
    names = options[options.index("-o") + 1].replace("delimiter='|'", "").split()
    everything = [_fields(row, scheduler) for row in rows]
    if scheduler.variant.arrays:
        # An element of an array: its id is no number, and no parser may take it for job 8.
        everything.insert(0, {**dict.fromkeys(names, ""), "jobid": "8[3]", "job_name": "arr[1-9]", "stat": "RUN"})
    records = [{name.upper(): fields.get(name, "") for name in names} for fields in everything]
    missing = [job_id for job_id in ids if int(job_id) not in {row.number for row in rows}]
    if "-json" in options:
        # As LSF does: an unknown job is a record with an error in the same list.
        lost = [{"JOBID": job_id, "ERROR": f"Job <{job_id}> is not found"} for job_id in missing]
        answer.say(json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": [*records, *lost]}))
    else:
        answer.out += ["|".join(record[name.upper()] or "-" for name in names) for record in records]
        answer.err += [f"Job <{job_id}> is not found" for job_id in missing]
    if not ids and not rows:
        answer.complain("No job found")
    # bjobs fails where one of the jobs is unknown, though it lists the others.
    answer.code = 255 if missing or not (ids or rows) else 0
    return answer


def _fields(row: Row, scheduler: FakeScheduler) -> dict[str, str]:
    words = {**_WORDS, **(_LONG_WORDS if scheduler.variant.long_states else {})}
    waiting = row.state in (JobState.PENDING, JobState.HELD)
    # By the quirk wide, longer than any line.
    reason = "Load information unavailable; " * 20 if scheduler.variant.wide else "New job is waiting for scheduling;"
    hosts = ":".join(["16*" + socket.gethostname()] * (50 if scheduler.variant.wide else 1))
    return {
        "jobid": str(row.number),
        "job_name": row.name,
        "stat": words.get(row.state, "EXIT"),
        "exit_code": str(row.exit_code or "") if row.state.terminal else "",
        "exit_reason": "TERM_OWNER: job killed by owner" if row.cancelled else "",
        "pend_reason": reason if waiting else "",
        "exec_host": hosts if row.state is JobState.RUNNING else "",
    }


def _bkill(scheduler: FakeScheduler, ids: list[str], answer: CommandAnswer) -> CommandAnswer:
    for job_id in ids:
        if scheduler.cancel(int(job_id)):
            answer.say(f"Job <{job_id}> is being terminated")
        else:
            answer.complain(f"Job <{job_id}>: Job has already finished", 255)
    return answer
