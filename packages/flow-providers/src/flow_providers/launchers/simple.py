"""The launcher that runs a command once, as it is."""

from __future__ import annotations


class SimpleLauncher:
    """Runs the command as it is, once, in the job's own shell: one worker, or a command that launches by itself."""

    def __repr__(self) -> str:
        return "SimpleLauncher()"

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the command as it is; the numbers of copies and nodes are ignored."""
        return command
