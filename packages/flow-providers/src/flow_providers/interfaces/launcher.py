"""The interface of launchers, which multiply one command over the nodes of a job."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Launcher(Protocol):
    """Any callable that wraps a command so that it runs on all nodes of a job. Pure: text to text."""

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return bash code that runs ``command`` the given number of times on each of the given number of nodes.

        Args:
            command: Bash code, possibly of several lines.
            tasks_per_node: Copies on each node.
            nodes_per_block: Nodes of the job.
        """
        ...
