"""What an executor wants of the Python of its nodes, and how its command line names that. All scripts load it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote

PYTHON = '"$flow_python"'
"""What stands for the Python of the node in the command of a manager."""
_POOL = re.compile(r"(?<![\w./-])(?:process|mpi)_worker_pool(?:\.py)?(?![\w./-])")


@dataclass(frozen=True, slots=True)
class NodePython:
    """What the user wants of the Python of nodes.

    Attributes:
        python: The one that is to be taken; None: it is looked for.
        bootstrap: Whether Flow is brought: True, False, or ``auto`` where it is missing, or is not the script's.
        environment: Path of a packed environment, or of a lock file; None: what the nodes have.
        drivers: Path of the script's Python, where nodes may have it too; empty: it means nothing there.
        in_image: Whether it is looked for in the image of a container.
    """

    python: str | None
    bootstrap: bool | str
    environment: str | None
    drivers: str
    in_image: bool = False


def with_pool_name(template: str) -> str:
    """Return a template in which the worker pool that older configurations name is the manager's module."""
    return _POOL.sub("{python} -P -m {module}", template)


def path_code(paths: str, marker: str, sha256: str) -> str:
    """Return bash code that puts the script's own directories on a manager's path where a marker of the run is seen.

    Elsewhere they are not there, or are others of the same name. Who may make directories on a node can make all these,
    but no file of the marker's content: its digest is compared. Where nothing tells digests the path stays as it is.
    """
    added = f'export PYTHONPATH={quote(paths)}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    told = f"$(sha256sum 2>/dev/null <{quote(marker)})"
    return f'[ ! -f {quote(marker)} ] || [ "{told}" != "{sha256}  -" ] || {added}'
