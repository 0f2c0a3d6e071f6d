"""What is said where mpi4py, or MPI itself, is missing."""

from __future__ import annotations

import os


def missing(python: str, where: str, error: str = "") -> str:
    """Return that mpi4py cannot be used by a Python, and what helps."""
    why = f" ({error})" if error else ""
    return (
        f"ExtremeScaleExecutor needs mpi4py, which {python} on {where} does not have{why}: install it there, for the "
        f"MPI of that machine: pip install mpi4py, or pip install --no-binary=mpi4py mpi4py"
    )


def speaks_for_all() -> bool:
    """Whether this process is the one of a job that says what is wrong, as far as its environment tells."""
    names = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PALS_RANKID", "SLURM_PROCID")
    told = [os.environ[name] for name in names if name in os.environ]
    return not told or told[0] == "0"
