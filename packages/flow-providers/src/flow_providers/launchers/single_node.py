"""The launcher of several copies on one node, the default of most providers."""

from __future__ import annotations

from flow_providers.launchers.base import TemplateLauncher
from flow_providers.options import checked


class SingleNodeLauncher(TemplateLauncher):
    """Starts the command ``tasks_per_node`` times on the node of the job; the default of most providers.

    The command finds the number of cores in CORES. The job's exit code is the first other than 0.

    Args:
        task_blocks: Another number of copies: an integer, or bash arithmetic such as ``'CORES / 4'``; None: what the
            provider says.
    """

    template = "single_node.sh.j2"

    @checked
    def __init__(self, task_blocks: int | str | None = None) -> None:
        super().__init__()
        self.task_blocks = task_blocks

    def values(self, command: str, tasks_per_node: int, nodes_per_block: int) -> dict[str, object]:
        """Return the values of the template, with the number of copies, which ``task_blocks`` overrides."""
        values = super().values(command, tasks_per_node, nodes_per_block)
        return {**values, "copies": tasks_per_node if self.task_blocks is None else self.task_blocks}
