"""The commands of Cobalt, in the shape of Cobalt 1.0."""

from __future__ import annotations

import socket
from pathlib import Path

from flow_providers.interfaces.job_state import JobState
from flow_testing.schedulers.command import Called, CommandAnswer, directive
from flow_testing.schedulers.scheduler import FakeScheduler, Row

_STATES = {JobState.PENDING: "queued", JobState.HELD: "user_hold", JobState.RUNNING: "running"}
_LONG_STATES = {JobState.PENDING: "maxrun_hold", JobState.RUNNING: "starting (booting nodes 3 to 17)"}


def simulate(scheduler: FakeScheduler, called: Called) -> CommandAnswer:
    """Answer one call of ``qsub``, ``qstat`` or ``qdel``; one that Cobalt would refuse gets an exit code above 0."""
    answer = CommandAnswer()
    if scheduler.is_away(called.program):
        return answer.complain("component lookup failed: Failed to connect to queue-manager", 1)
    if called.program == "qsub":
        return _qsub(scheduler, called, answer)
    if scheduler.variant.chatty:
        answer.complain("Notice: maintenance on Tuesday")
    ids = [int(word) for word in called.arguments if word.isdecimal()]
    if called.program == "qdel":
        return _qdel(scheduler, ids, answer)
    return _qstat(scheduler, called.arguments, ids, answer)


def _qsub(scheduler: FakeScheduler, called: Called, answer: CommandAnswer) -> CommandAnswer:
    path = Path(called.arguments[-1])
    # Cobalt refuses a script that is not executable; other schedulers do not ask for that.
    if not path.stat().st_mode & 0o100:
        return answer.complain(f"command {path} not found, or is not an executable file", 1)
    script = path.read_text()
    out, err, name, queue, log = (
        directive(script, "COBALT", option) for option in ("-o", "-e", "--jobname", "-q", "--debuglog")
    )
    if queue == "nowhere":
        return answer.complain("Job submission failed, reason: Unknown queue 'nowhere'", 1)
    if scheduler.variant.chatty:
        answer.say("Auto set option 'attrs' to 'filesystems=home'")
    row = scheduler.submit(script, name, out, err, called.cwd, "#COBALT -h" in script)
    Path(log).write_text(f"Sat Nov 21 12:00:00 2026 +0000 (UTC) submitted with cwd set to: {called.cwd}\n")
    answer.say(str(row.number))
    return answer


def _qstat(scheduler: FakeScheduler, options: list[str], ids: list[int], answer: CommandAnswer) -> CommandAnswer:
    rows = [row for row in scheduler.rows(ids or None) if not row.state.terminal]  # ended jobs leave at once
    jobs = [_fields(row, scheduler) for row in rows]
    if scheduler.variant.arrays:
        # And a record cut off after its first line, as of a qstat that was ended.
        jobs = [{"JobID": "8[3]", "JobName": "arr", "State": "running"}, *jobs, {"JobID": "77"}]
    if "-lf" in options:
        for fields in jobs:
            answer.say(f"JobID: {fields['JobID']}")
            answer.out += [f"    {name:<18}: {value}" for name, value in fields.items() if name != "JobID"]
            answer.say("")
    elif jobs:
        answer.out += _table(["JobID", "User", "WallTime", "Nodes", "State", "Location"], jobs)
    return answer


def _table(names: list[str], jobs: list[dict[str, str]]) -> list[str]:
    """Return columns as wide as their widest values."""
    widths = [max(len(name), *(len(job.get(name, "")) for job in jobs)) for name in names]
    lines = [names, *([job.get(name, "") for name in names] for job in jobs)]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    return [text[0], "=" * len(text[0]), *text[1:]]


def _fields(row: Row, scheduler: FakeScheduler) -> dict[str, str]:
    states = {**_STATES, **(_LONG_STATES if scheduler.variant.long_states else {})}
    nodes = socket.gethostname() if row.state is JobState.RUNNING else "None"
    return {
        "JobID": str(row.number),
        "JobName": row.name,
        "User": "a_user_with_a_very_long_name" * (4 if scheduler.variant.wide else 1),
        "WallTime": "00:10:00",
        "Nodes": "1",
        "State": states[row.state],
        "Location": "[" + ", ".join([nodes] * 300) + "]" if scheduler.variant.wide else nodes,
        "Mode": "script",
        "Queue": "default",
        "StartTime": "N/A",
        # A value that looks like a field: parsers must not believe it.
        "Args": "State : done" if scheduler.variant.wide else "",
    }


def _qdel(scheduler: FakeScheduler, ids: list[int], answer: CommandAnswer) -> CommandAnswer:
    gone = []
    for row in scheduler.rows(ids):
        if scheduler.cancel(row.number):
            gone.append(row.number)
            with open(directive(Path(row.script).read_text(), "COBALT", "--debuglog"), "a") as log:
                log.write("Sat Nov 21 12:00:09 2026 +0000 (UTC) Info: user delete requested\n")
    if gone:
        answer.out += ["      Deleted Jobs", "JobID  User", "============", *(f"{number}  me" for number in gone)]
    if len(gone) < len(ids):
        answer.complain("No jobs found matching: " + ", ".join(str(number) for number in ids if number not in gone), 1)
    return answer
