"""Programs that play the commands of PBS Pro, LSF and HTCondor in front of a FakeScheduler.

``install_commands`` puts them into a directory for the PATH; they are ``python -m flow_providers.testing.fakes.faces``.
What they print has the shape of what OpenPBS 23.06 and LSF 10.1 print.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from flow_providers.interfaces.job_state import JobState
from flow_providers.testing.fakes.scheduler import FakeScheduler, Quirks, Row

_COMMANDS = {
    "condor": ("condor_submit", "condor_q", "condor_history", "condor_rm"),
    "lsf": ("bsub", "bjobs", "bkill"),
    "pbspro": ("qsub", "qstat", "qdel", "qselect"),
}


def install_commands(face: str, folder: Path, quirks: Quirks = Quirks()) -> Path:  # noqa: B008  # frozen
    """Make the commands of a scheduler, and return their directory.

    Args:
        face: ``pbspro``, ``lsf`` or ``condor``.
        folder: An empty directory for the commands and the scheduler's state.
        quirks: How it misbehaves.
    """
    state, programs = folder / "state", folder / "bin"
    state.mkdir(parents=True)
    programs.mkdir()
    profile = quote(json.dumps(asdict(quirks)))
    for command in _COMMANDS[face]:
        program = programs / command
        module = "flow_providers.testing.fakes.faces"
        line = f'exec {quote(sys.executable)} -m {module} {face} {quote(str(state))} {profile} {command} "$@"'
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return programs


def main(arguments: Sequence[str]) -> int:
    """Play one command."""
    face, folder, profile, command, *rest = arguments
    scheduler = FakeScheduler(folder, Quirks(**json.loads(profile)))
    play: Callable[[FakeScheduler, str, list[str]], int] = {"condor": _condor, "lsf": _lsf, "pbspro": _pbspro}[face]
    return play(scheduler, command, rest)


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout)  # a command's answer


def _directive(script: str, mark: str, option: str) -> str:
    found = re.findall(rf"^#{mark} {option} (.*)$", script, re.MULTILINE)
    return found[-1].strip() if found else ""


# -- PBS Pro


def _pbspro(scheduler: FakeScheduler, command: str, rest: list[str]) -> int:
    if scheduler.is_away():
        _say("Connection refused\nqstat: cannot connect to server pbs (errno=15010)", error=True)
        return 255
    if command == "qsub":
        return _qsub(scheduler, rest)
    if scheduler.quirks.chatty:
        _say("Notice: maintenance on Tuesday", error=True)
    if command == "qselect":
        for row in scheduler.rows():
            if not row.state.terminal:
                _say(f"{row.number}.pbs")
        return 0
    ids = [word for word in rest if word[:1].isdigit()]
    return _qdel(scheduler, ids) if command == "qdel" else _qstat(scheduler, rest, ids)


def _qsub(scheduler: FakeScheduler, rest: list[str]) -> int:
    script = Path(rest[-1]).read_text()
    given = dict(zip(rest[:-1:2], rest[1:-1:2], strict=True))
    if _directive(script, "PBS", "-q") == "nowhere":
        _say("qsub: Unknown queue", error=True)
        return 170
    out = given.get("-o") or _directive(script, "PBS", "-o")
    err = given.get("-e") or _directive(script, "PBS", "-e")
    held = "#PBS -h" in script
    row = scheduler.submit(script, given.get("-N", "STDIN"), out, err, held)
    _say(f"{row.number}.pbs")
    return 0


def _qstat(scheduler: FakeScheduler, rest: list[str], ids: list[str]) -> int:
    with_ended = "-x" in rest
    rows = scheduler.rows([int(job_id.partition(".")[0]) for job_id in ids] if ids else None)
    shown = [row for row in rows if with_ended or not row.state.terminal]
    jobs = {f"{row.number}.pbs": _pbs_attributes(row) for row in shown}
    if "json" in rest:
        _say(json.dumps({"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": "pbs", "Jobs": jobs}))
    else:
        for job_id, attributes in jobs.items():
            _say(f"Job Id: {job_id}\n" + "\n".join(f"    {name} = {value}" for name, value in attributes.items()))
    unknown = [job_id for job_id in ids if job_id not in jobs]
    for job_id in unknown:
        _say(f"qstat: Unknown Job Id {job_id}", error=True)
    return 153 if unknown else 0


def _pbs_attributes(row: Row) -> dict[str, object]:
    letters = {JobState.PENDING: "Q", JobState.HELD: "H", JobState.RUNNING: "R"}
    attributes: dict[str, object] = {"Job_Name": row.name, "job_state": letters.get(row.state, "F")}
    if row.state.terminal:
        attributes["Exit_status"] = 256 + 15 if row.cancelled else row.exit_code if row.exit_code is not None else -1
    if row.state is JobState.RUNNING:
        host = socket.gethostname()
        attributes["exec_host"] = f"{host}/0*2+{host}/1*2"
    return attributes


def _qdel(scheduler: FakeScheduler, ids: list[str]) -> int:
    code = 0
    for job_id in ids:
        if not scheduler.cancel(int(job_id.partition(".")[0])):
            _say(f"qdel: Unknown Job Id {job_id}", error=True)
            code = 153
    return code


# -- LSF


def _lsf(scheduler: FakeScheduler, command: str, rest: list[str]) -> int:
    if scheduler.is_away():
        _say("LSF is down. Please wait ...", error=True)
        return 255
    if scheduler.quirks.chatty:
        _say("Notice: maintenance on Tuesday", error=True)
    if command == "bsub":
        return _bsub(scheduler)
    ids = [word for word in rest if word.isdecimal()]
    return _bkill(scheduler, ids) if command == "bkill" else _bjobs(scheduler, rest, ids)


def _bsub(scheduler: FakeScheduler) -> int:
    script = sys.stdin.read()
    queue = _directive(script, "BSUB", "-q") or "normal"
    if queue == "nowhere":
        _say("nowhere: No such queue. Job not submitted.", error=True)
        return 255
    out, err, name = (_directive(script, "BSUB", option) for option in ("-o", "-e", "-J"))
    row = scheduler.submit(script, name, out, err, "#BSUB -H" in script)
    if scheduler.quirks.chatty:
        _say("Checking quotas ... passed")
    _say(f"Job <{row.number}> is submitted to queue <{queue}>.")
    return 0


def _bjobs(scheduler: FakeScheduler, rest: list[str], ids: list[str]) -> int:
    rows = scheduler.rows([int(job_id) for job_id in ids] if ids else None)
    fields = rest[rest.index("-o") + 1].replace("delimiter='|'", "").split()
    records = [{name.upper(): value for name, value in _lsf_fields(row).items() if name in fields} for row in rows]
    missing = [job_id for job_id in ids if int(job_id) not in {row.number for row in rows}]
    if "-json" in rest:
        lost = [{"JOBID": job_id, "ERROR": f"Job <{job_id}> is not found"} for job_id in missing]
        _say(json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": [*records, *lost]}))
    else:
        for record in records:
            _say("|".join(record[name.upper()] or "-" for name in fields))
        for job_id in missing:
            _say(f"Job <{job_id}> is not found", error=True)
    if not ids and not rows:
        _say("No job found", error=True)
        return 255
    return 255 if missing else 0


def _lsf_fields(row: Row) -> dict[str, str]:
    words = {JobState.PENDING: "PEND", JobState.HELD: "PSUSP", JobState.RUNNING: "RUN", JobState.COMPLETED: "DONE"}
    waiting = row.state in (JobState.PENDING, JobState.HELD)
    return {
        "jobid": str(row.number),
        "job_name": row.name,
        "stat": words.get(row.state, "EXIT"),
        "exit_code": str(row.exit_code or "") if row.state.terminal else "",
        "exit_reason": "TERM_OWNER: job killed by owner" if row.cancelled else "",
        "pend_reason": "New job is waiting for scheduling;" if waiting else "",
        "exec_host": socket.gethostname() if row.state is JobState.RUNNING else "",
    }


def _bkill(scheduler: FakeScheduler, ids: list[str]) -> int:
    code = 0
    for job_id in ids:
        if scheduler.cancel(int(job_id)):
            _say(f"Job <{job_id}> is being terminated")
        else:
            _say(f"Job <{job_id}>: Job has already finished", error=True)
            code = 255
    return code


# -- HTCondor


def _condor(scheduler: FakeScheduler, command: str, rest: list[str]) -> int:
    if scheduler.is_away():
        _say("-- Failed to fetch ads from: <127.0.0.1:9618> : SECMAN:2007:Failed to connect", error=True)
        return 1
    if scheduler.quirks.chatty:
        _say("WARNING: maintenance on Tuesday", error=True)
    if command == "condor_submit":
        return _condor_submit(scheduler, rest)
    ids = [int(word) for word in rest[: rest.index("-json")] if word.isdecimal()] if "-json" in rest else []
    if command == "condor_rm":
        return _condor_rm(scheduler, [int(word) for word in rest])
    everybody = scheduler.rows(ids or None, forgotten=command == "condor_history")
    rows = [row for row in everybody if command == "condor_q" or row.state.terminal]
    if rows:  # an empty queue prints nothing at all
        _say(json.dumps([_advertisement(row) for row in rows], indent=1))
    return 0


def _condor_submit(scheduler: FakeScheduler, rest: list[str]) -> int:
    text = Path(rest[-1]).read_text()
    given = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
    if given.get("+Queue") == '"nowhere"':
        _say("ERROR: Unknown queue", error=True)
        return 1
    script = Path(given["executable"]).read_text()
    held = given.get("hold") == "true"
    row = scheduler.submit(script, given["batch_name"], given["output"], given["error"], held)
    _say(f"Submitting job(s).\n1 job(s) submitted to cluster {row.number}.")
    return 0


def _advertisement(row: Row) -> dict[str, object]:
    numbers = {JobState.PENDING: 1, JobState.RUNNING: 2, JobState.HELD: 5}
    ad: dict[str, object] = {
        "ClusterId": row.number,
        "ProcId": 0,
        "JobStatus": 3 if row.cancelled else numbers.get(row.state, 4),
        "JobBatchName": row.name,
    }
    if row.state is JobState.HELD:
        ad["HoldReason"] = "submitted on hold at user's request"
    if row.state.terminal and not row.cancelled:
        ad.update(ExitCode=row.exit_code, ExitBySignal=False)
    if row.state is JobState.RUNNING:
        ad.update(RemoteHost=f"slot1@{socket.gethostname()}", JobCurrentStartDate=int(row.started_at or 0))
    return ad


def _condor_rm(scheduler: FakeScheduler, numbers: list[int]) -> int:
    code = 0
    for number in numbers:
        if scheduler.cancel(number):
            _say(f"All jobs in cluster {number} have been marked for removal")
        else:
            _say(f"Couldn't find/remove all jobs in cluster {number}", error=True)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
