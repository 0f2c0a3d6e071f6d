"""The base of launchers: a template beside this file, and free text added to the launching command."""

from __future__ import annotations

from hashlib import sha256

from flow_providers.errors import BadLauncher
from flow_providers.interfaces.launcher import Launcher
from flow_providers.options import checked, repr_of
from flow_providers.templates import render


class TemplateLauncher:
    """Base of launchers that render a template with ``command``, ``tasks_per_node``, ``nodes`` and ``overrides``.

    Args:
        overrides: Free text added to the launching command.
    """

    template: str

    @checked
    def __init__(self, overrides: str = "") -> None:
        self.overrides = overrides

    def __repr__(self) -> str:
        return repr_of(self)

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return bash code that runs the command on every node. SchedulerMissingArgs: bug of the template."""
        return render("flow_providers.launchers", self.template, self.values(command, tasks_per_node, nodes_per_block))

    def values(self, command: str, tasks_per_node: int, nodes_per_block: int) -> dict[str, object]:
        """Return the values of the template; launchers with further options extend them."""
        return {
            "read_command": _read_command(command),
            "tasks_per_node": tasks_per_node,
            "nodes": nodes_per_block,
            "overrides": self.overrides,
        }


def launch(launcher: object, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
    """Return the command as wrapped by a launcher. BadLauncher: it does not give back text."""
    wrapped = check_launcher(launcher)(command, tasks_per_node, nodes_per_block)
    if not isinstance(wrapped, str):
        raise BadLauncher(f"the launcher {launcher!r} returned {wrapped!r}: it must return the bash code to run")
    return wrapped


def check_launcher(launcher: object) -> Launcher:
    """Return the launcher. BadLauncher: it is not callable, or is a class in place of an object."""
    # A class is callable too, and would be made with the command as its option, jobs failing much later.
    if isinstance(launcher, type):
        raise BadLauncher(f"launcher={launcher.__name__} is a class: write {launcher.__name__}()")
    if not isinstance(launcher, Launcher):
        raise BadLauncher(
            f"launcher={launcher!r} is not callable: use one of flow_providers.launchers, or any callable "
            "(command, tasks_per_node, nodes_per_block) -> str"
        )
    return launcher


def _read_command(command: str) -> str:
    """Return bash code that puts the command into FLOW_COMMAND as it is, whatever quotes and lines it has."""
    # The end mark is a digest of the command, so no line of the command can be the mark. surrogatepass: names of files
    # need not be UTF-8.
    mark = "FLOW_" + sha256(command.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"IFS= read -r -d '' FLOW_COMMAND <<'{mark}' || true\n{command}\n{mark}"
