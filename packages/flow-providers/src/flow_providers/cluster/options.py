"""The options that the providers of all batch schedulers share."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.block_options import BlockOptions
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.interfaces.channel import Channel


@dataclass(frozen=True, slots=True)
class ClusterOptions(BlockOptions):
    """Those of all providers, and how the scheduler is reached.

    Attributes:
        walltime: ``HH:MM:SS``; batch schedulers always have a limit.
        channel: How the scheduler is reached; None: on this machine.
        scheduler_options: Lines put after the directives of the submit script.
        shared_disk: Whether the nodes see the files of the host that submits; ``'auto'``: each job finds out.
    """

    walltime: str = "00:10:00"
    channel: Channel | None = None
    scheduler_options: str = ""
    shared_disk: SharedDisk = True
