"""The launchers for Slurm's ``srun``."""

from __future__ import annotations

from flow_providers.launchers.base import TemplateLauncher


class SrunLauncher(TemplateLauncher):
    """Starts the command on every node by one ``srun``.

    Args:
        overrides: Free text added to the srun call, such as ``'-c 32'``.
    """

    template = "srun.sh.j2"


class SrunMPILauncher(TemplateLauncher):
    """Starts each copy by a ``srun`` of its own, so that several MPI applications can run in one block at once.

    Args:
        overrides: Free text added to each srun call.
    """

    template = "srun_mpi.sh.j2"
