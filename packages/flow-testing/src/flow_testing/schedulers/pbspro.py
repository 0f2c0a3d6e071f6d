"""The commands of PBS Pro, in the shape of OpenPBS 23.06."""

from __future__ import annotations

import json
import socket
import time

from flow_providers.interfaces.job_state import JobState
from flow_testing.schedulers.command import Called, CommandAnswer, directive
from flow_testing.schedulers.scheduler import FakeScheduler, Row

_LETTERS = {JobState.PENDING: "Q", JobState.HELD: "H", JobState.RUNNING: "R"}
_LONG_LETTERS = {JobState.PENDING: "W", JobState.RUNNING: "S"}
# An array job of somebody else, running, and an ended part of it.
_OTHERS: dict[str, dict[str, object]] = {
    "8[].pbs": {"Job_Name": "arr", "job_state": "B", "Job_Owner": "somebody@else"},
    "8[1].pbs": {"Job_Name": "arr", "job_state": "X", "Exit_status": 0},
}


def simulate(scheduler: FakeScheduler, called: Called) -> CommandAnswer:
    """Answer one call of ``qsub``, ``qstat``, ``qselect`` or ``qdel``; codes of refusals are those of OpenPBS."""
    answer = CommandAnswer()
    if scheduler.is_away(called.program):
        return answer.complain("Connection refused\nqstat: cannot connect to server pbs (errno=15010)", 255)
    if called.program == "qsub":
        return _qsub(scheduler, called, answer)
    if scheduler.variant.chatty:
        answer.complain("Notice: maintenance on Tuesday")
    if called.program == "qselect":
        answer.out += [f"{row.number}.pbs" for row in scheduler.rows() if not row.state.terminal]
        return answer
    ids = [word for word in called.arguments if word[:1].isdigit()]
    if called.program == "qdel":
        return _qdel(scheduler, ids, answer)
    return _qstat(scheduler, called.arguments, ids, answer)


def _qsub(scheduler: FakeScheduler, called: Called, answer: CommandAnswer) -> CommandAnswer:
    *options, path = called.arguments
    script = called.text_of(path)
    given = dict(zip(options[::2], options[1::2], strict=True))
    if directive(script, "PBS", "-q") == "nowhere":
        return answer.complain("qsub: Unknown queue", 170)
    out = given.get("-o") or directive(script, "PBS", "-o")
    err = given.get("-e") or directive(script, "PBS", "-e")
    row = scheduler.submit(script, given.get("-N", "STDIN"), out, err, called.cwd, "#PBS -h" in script)
    answer.say(f"{row.number}.pbs")
    return answer


def _qstat(scheduler: FakeScheduler, options: list[str], ids: list[str], answer: CommandAnswer) -> CommandAnswer:
    rows = scheduler.rows([int(job_id.partition(".")[0]) for job_id in ids] if ids else None)
    # Without -x a real qstat does not know finished jobs.
    shown = [row for row in rows if "-x" in options or not row.state.terminal]
    jobs = {f"{row.number}.pbs": _attributes(row, scheduler) for row in shown}
    listed = {**(_OTHERS if scheduler.variant.arrays else {}), **jobs}
    if "json" in options:
        about: dict[str, object] = {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": "pbs"}
        answer.say(json.dumps({**about, "Jobs": listed}))
    else:
        for job_id, attributes in listed.items():
            answer.say(f"Job Id: {job_id}\n" + "\n".join(_folded(*item) for item in attributes.items()))
    unknown = [job_id for job_id in ids if job_id not in jobs]
    for job_id in unknown:
        answer.complain(f"qstat: Unknown Job Id {job_id}", 153)
    return answer


def _folded(name: str, value: object) -> str:
    """Return an attribute, its long lines folded as qstat does."""
    text = f"    {name} = {value}"
    return text[:78] + "".join(f"\n\t{text[i : i + 70]}" for i in range(78, len(text), 70))


def _attributes(row: Row, scheduler: FakeScheduler) -> dict[str, object]:
    letters = {**_LETTERS, **(_LONG_LETTERS if scheduler.variant.long_states else {})}
    attributes: dict[str, object] = {"Job_Name": row.name, "job_state": letters.get(row.state, "F")}
    if scheduler.variant.wide:
        # Text of the user's that looks like an attribute; folded, it may even begin a line.
        attributes["Variable_List"] = ",".join(f"A{i}=job_state = X" for i in range(30))
        attributes["comment"] = "Not Running: " + "a very long reason, " * 30
    if row.state.terminal:
        # 256 + n: as PBS reports the signal that ended a job.
        attributes["Exit_status"] = 256 + 15 if row.cancelled else row.exit_code if row.exit_code is not None else -1
    if row.state is JobState.RUNNING:
        host = socket.gethostname()
        attributes["exec_host"] = "+".join(f"{host}/{i}*2" for i in range(60 if scheduler.variant.wide else 2))
    return attributes


def _qdel(scheduler: FakeScheduler, ids: list[str], answer: CommandAnswer) -> CommandAnswer:
    for job_id in ids:
        if not scheduler.cancel(int(job_id.partition(".")[0])):
            answer.complain(f"qdel: Unknown Job Id {job_id}", 153)
    return answer
