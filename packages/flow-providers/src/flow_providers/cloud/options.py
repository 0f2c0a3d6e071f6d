"""The options that the providers of all clouds share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flow_providers.block_options import BlockOptions
from flow_providers.option_records import about

MachineWalltime = Annotated[str | None, about("``HH:MM:SS`` a command may run; None: no limit.")]
Linger = Annotated[bool, about("Whether machines stay on when their jobs have ended; the user has to end them then.")]


@dataclass(frozen=True, slots=True)
class CloudOptions(BlockOptions):
    """The options of all providers, and the fate of a machine after its job."""

    linger: Linger = False
