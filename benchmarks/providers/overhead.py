"""What the provisioning library costs: its import, a submission, and the states of a thousand jobs.

    python benchmarks/providers/overhead.py [--rounds 5] [--submissions 20] [--jobs 1000]

import       seconds that ``import flow_providers`` takes, beyond those of a bare interpreter; the bar is 0.1 s
submission   what ``submit`` adds to the scheduler's own command, called in turns with it: median milliseconds of each
             and of what is added; the bar is 20 ms. The command is a shell script that answers at once: all the rest
             is ours, the submit script from its template, written to disk, the shell, the answer read.
status       how often the scheduler is asked for the states of all jobs, and the milliseconds of that, with the answer
             parsed; the bar is once
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flow_providers import (
    CobaltProvider,
    CondorProvider,
    GridEngineProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
)
from flow_providers.channels import LocalChannel
from flow_providers.cluster.base import ClusterProvider

IMPORT_BAR_S, SUBMISSION_BAR_MS = 0.1, 20.0


@dataclass(frozen=True)
class Played:
    """A scheduler whose commands are shell scripts.

    It has what its submission prints, the command that asks, and a row of the answer, with what stands around rows.
    """

    provider: Callable[..., ClusterProvider]
    submit: str
    submitted: str
    ask: str
    row: str
    before: str = ""
    after: str = ""
    between: str = "\n"


_QSTAT_F = "Job Id: {id}\n    Job_Name = fabc.x\n    job_state = Q"
SCHEDULERS = {
    "slurm": Played(SlurmProvider, "sbatch", "{id}", "squeue", "{id}|PENDING|0|N/A|N/A||Priority|"),
    "gridengine": Played(
        GridEngineProvider,
        "qsub",
        "{id}",
        "qstat",
        "<job_list><JB_job_number>{id}</JB_job_number><state>qw</state></job_list>",
        '<?xml version="1.0"?><job_info>',
        "</job_info>",
    ),
    "torque": Played(TorqueProvider, "qsub", "{id}", "qstat", _QSTAT_F),
    "pbspro": Played(
        PBSProProvider, "qsub", "{id}", "qstat", '"{id}": {{"job_state": "Q"}}', '{"Jobs": {', "}}", between=","
    ),
    "lsf": Played(
        LSFProvider,
        "bsub",
        "Job <{id}> is submitted to queue <normal>.",
        "bjobs",
        '{{"JOBID": "{id}", "STAT": "PEND"}}',
        '{"RECORDS": [',
        "]}",
        between=",",
    ),
    "cobalt": Played(CobaltProvider, "qsub", "{id}", "qstat", "JobID: {id}\n    State             : queued\n"),
    "condor": Played(
        CondorProvider,
        "condor_submit",
        "1 job(s) submitted to cluster {id}.",
        "condor_q",
        '{{"ClusterId": {id}, "ProcId": 0, "JobStatus": 1}}',
        "[",
        "]",
        between=",",
    ),
}


def import_seconds(rounds: int) -> float:
    """Return the median time of an import in a fresh interpreter, beyond its own start."""
    code = "import time; t = time.perf_counter(); import flow_providers; print(time.perf_counter() - t)"
    taken = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(rounds)]
    return statistics.median(float(done.stdout) for done in taken)


def play(scheduler: Played, folder: Path, jobs: int) -> ClusterProvider:
    """Put the scheduler's commands into the folder, and return its provider."""
    rows = scheduler.between.join(scheduler.row.format(id=number) for number in range(1, jobs + 1))
    (folder / "answer").write_text(scheduler.before + rows + scheduler.after + "\n")
    for name, code in {
        scheduler.submit: f"echo '{scheduler.submitted.format(id=1)}'",
        scheduler.ask: f"echo asked >>{folder}/asked; cat {folder}/answer",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    channel = LocalChannel(envs={"PATH": f"{folder}:{os.environ['PATH']}"}, script_dir=str(folder / "scripts"))
    return scheduler.provider(channel=channel)


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def submission_ms(provider: ClusterProvider, command: Path, times: int) -> tuple[float, float]:
    """Return the medians of the command alone, as a user runs it, and of a submission, in turns."""
    alone, ours = [], []
    provider.submit("true", 1)  # templates are read once
    for _ in range(times):
        alone.append(milliseconds(lambda: subprocess.run([command], capture_output=True)))
        ours.append(milliseconds(lambda: provider.submit("true", 1)))
    return statistics.median(alone), statistics.median(ours)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--submissions", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    print(f"import flow_providers: {import_seconds(options.rounds):.3f} s (bar {IMPORT_BAR_S} s)\n")
    title = f"status of {options.jobs}"
    print(f"{'':12} {'command':>10} {'submit':>10} {'added':>10}   {title:>16} {'queries':>8}")
    for name, scheduler in SCHEDULERS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            provider = play(scheduler, folder, options.jobs)
            alone, ours = submission_ms(provider, folder / scheduler.submit, options.submissions)
            ids = [str(number) for number in range(1, options.jobs + 1)]
            asking = milliseconds(lambda: provider.status(ids))  # noqa: B023  # called at once
            queries = (folder / "asked").read_text().count("asked")
        added = ours - alone
        print(f"{name:12} {alone:7.1f} ms {ours:7.1f} ms {added:7.1f} ms   {asking:13.1f} ms {queries:8}")
    print(f"\nbars: {SUBMISSION_BAR_MS:g} ms added, 1 query")


if __name__ == "__main__":
    main()
