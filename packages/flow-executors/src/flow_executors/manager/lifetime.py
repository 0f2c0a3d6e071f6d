"""How long this manager's block has been running, and when it ends: looked at once, at the start."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The block's own time in seconds; ``walltime_s`` and ``left_s`` are 0 where nobody knows.

    Attributes:
        walltime_s: How long the block lasts in all.
        age_s: How long it has been running.
        left_s: How long it will go on.
    """

    walltime_s: float = 0.0
    age_s: float = 0.0
    left_s: float = 0.0


def look(walltime_s: float, environment: Mapping[str, str] = os.environ) -> Lifetime:
    """Find out when the block ends: from the scheduler if it says so, else from its walltime and the job's start.

    The job began before this process did: modules are loaded and programs started on many nodes before.
    """
    left = _told_by_slurm(environment)
    if left is not None:
        return Lifetime(max(walltime_s, left), max(0.0, walltime_s - left), left)
    if not walltime_s:
        return Lifetime()
    age = min(_age_of_session(), walltime_s / 2)  # a session that is older is none of a job
    return Lifetime(walltime_s, age, walltime_s - age)


def _told_by_slurm(environment: Mapping[str, str]) -> float | None:
    text = environment.get("SLURM_JOB_END_TIME", "")
    return max(0.0, int(text) - time.time()) if text.isdigit() and text != "0" else None


def _age_of_session() -> float:
    try:
        return max(0.0, time.time() - psutil.Process(os.getsid(0)).create_time())
    except (psutil.Error, OSError):
        return 0.0
