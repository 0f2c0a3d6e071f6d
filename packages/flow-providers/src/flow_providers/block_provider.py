"""The base of all providers: shared options as attributes, and a repr that makes an equal provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from flow_providers.block_options import BlockOptions
from flow_providers.errors import SubmitException
from flow_providers.interfaces.launcher import Launcher
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.launchers.base import check_launcher
from flow_providers.launchers.single_node import SingleNodeLauncher
from flow_providers.options import repr_of
from flow_providers.walltime import walltime_seconds


def check_copies(tasks_per_node: int) -> None:
    """Raise SubmitException unless a job would run its command at least once on each node."""
    if tasks_per_node < 1:
        raise SubmitException(f"tasks_per_node={tasks_per_node} must be at least 1")


class BlockProvider(ExecutionProvider):
    """Base of the providers; takes their shared options.

    Args:
        options: The record; its values become attributes, which may be changed between two jobs.

    Raises (from the constructor):
        BadOption: the walltime does not parse.
        BadLauncher: the launcher is none.
    """

    default_launcher: Callable[[], Launcher] = SingleNodeLauncher
    """Makes the launcher of a provider that was given none."""
    walltime: str | None
    worker_init: str
    cmd_timeout: float
    launcher: Launcher

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} can be neither pickled nor copied: it knows jobs, and has locks of its own. Make "
            "another one by the same call, which repr() shows, or hand on a function that does"
        )

    def __init__(self, options: BlockOptions) -> None:
        self.nodes_per_block = options.nodes_per_block
        self.init_blocks = options.init_blocks
        self.min_blocks = options.min_blocks
        self.max_blocks = options.max_blocks
        self.parallelism = options.parallelism
        self.walltime = options.walltime
        self.walltime_s = None if options.walltime is None else float(walltime_seconds(options.walltime))
        self.worker_init = options.worker_init
        self.cmd_timeout = options.cmd_timeout
        self.launcher = check_launcher(type(self).default_launcher() if options.launcher is None else options.launcher)
        self.cores_per_node = options.cores_per_node
        self.mem_per_node = options.mem_per_node

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing beside the others."""
        return []

    def __repr__(self) -> str:
        return repr_of(self)
