"""The launcher that prefixes a command, such as with the call of a container."""

from __future__ import annotations

from shlex import quote

from flow_providers.interfaces.launcher import Launcher
from flow_providers.launchers.base import check_launcher, launch
from flow_providers.launchers.simple import SimpleLauncher
from flow_providers.options import checked, repr_of


class WrappedLauncher:
    """Prefixes the command with another, such as ``apptainer exec image.sif``, then launches it by another launcher.

    Args:
        prepend: Text before the command; the command becomes its arguments ``bash -c '...'``.
        launcher: Launches the wrapped command; None: once, as it is.
    """

    @checked
    def __init__(self, prepend: str, launcher: object = None) -> None:
        self.prepend = prepend
        self.launcher: Launcher = SimpleLauncher() if launcher is None else check_launcher(launcher)

    def __repr__(self) -> str:
        return repr_of(self)

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the wrapped and launched command."""
        return launch(self.launcher, f"{self.prepend} bash -c {quote(command)}", tasks_per_node, nodes_per_block)
