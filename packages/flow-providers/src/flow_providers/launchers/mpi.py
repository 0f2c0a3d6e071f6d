"""The launchers for ``mpiexec`` and ``mpirun``."""

from __future__ import annotations

from flow_providers.launchers.base import TemplateLauncher


class MpiExecLauncher(TemplateLauncher):
    """Starts the command on every node by one ``mpiexec``; of Open MPI, or of the MPICH family.

    The nodes are those of the scheduler's node file where there is one (PBS, Cobalt, LSF), else what mpiexec finds.

    Args:
        overrides: Free text added to the call.
    """

    template = "mpi.sh.j2"
    program = "mpiexec"

    def values(self, command: str, tasks_per_node: int, nodes_per_block: int) -> dict[str, object]:
        """Return the values of the template, with the MPI program to call."""
        return {**super().values(command, tasks_per_node, nodes_per_block), "program": self.program}


class MpiRunLauncher(MpiExecLauncher):
    """Starts the command on every node by one ``mpirun``.

    Args:
        overrides: Free text added to the call.
    """

    program = "mpirun"
