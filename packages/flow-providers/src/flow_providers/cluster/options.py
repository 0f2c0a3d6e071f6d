"""The options that the providers of all batch schedulers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flow_providers.block_options import BlockOptions
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.interfaces.channel import Channel
from flow_providers.option_records import about

ViaChannel = Annotated[Channel | None, about("How the scheduler is reached; None: on this machine.")]


@dataclass(frozen=True, slots=True)
class ClusterOptions(BlockOptions):
    """Those of all providers, and how the scheduler is reached."""

    walltime: Annotated[str, about("``HH:MM:SS``; batch schedulers always have a limit.")] = "00:10:00"
    channel: ViaChannel = None
    scheduler_options: Annotated[str, about("Lines put after the directives of the submit script.")] = ""
    shared_disk: Annotated[
        SharedDisk,
        about("Whether the nodes see the files of the host that submits; ``'auto'``: each job finds out."),
    ] = True
