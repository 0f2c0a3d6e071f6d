"""What mpiexec writes of the rank whose end has ended a job: found in the job's standard error. No I/O."""

from __future__ import annotations

import re

_SIGNALLED = re.compile(r"process rank (\d+) with PID (\d+) on node (\S+) exited on\s+signal (\d+)(?: \(([^)\n]*)\))?")
_LOST_DAEMON = re.compile(r"Remote daemon:\s*\S+ on node (\S+)")
_EXITED = re.compile(r"Process name: \[\[\d+,\d+\],\s*(\d+)\]\s+Exit code:\s+(\d+)")
_HYDRA = re.compile(r"PID (\d+) RUNNING AT (\S+)\s*\n=\s*EXIT CODE: (\d+)")
_SRUN = re.compile(r"srun: error: (\S+): task (\d+): (.+)")


def who_ended(text: str) -> str:
    """Return which rank ended a job, in words, as its mpiexec or srun says; empty where it does not."""
    if found := _SIGNALLED.search(text):
        name = f" ({found[5]})" if found[5] else ""
        return f"rank {found[1]} (pid {found[2]}) on node {found[3]} was ended by signal {found[4]}{name}"
    if found := _HYDRA.search(text):
        return f"the rank with pid {found[1]} on node {found[2]} ended with exit code {found[3]}"
    if found := _SRUN.search(text):
        return f"rank {found[2]} on node {found[1]}: {found[3].strip()}"
    if found := _LOST_DAEMON.search(text):
        return f"mpiexec has lost node {found[1]}"
    if found := _EXITED.search(text):
        return f"rank {found[1]} ended with exit code {found[2]}"
    return ""
