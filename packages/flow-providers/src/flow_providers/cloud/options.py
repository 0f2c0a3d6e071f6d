"""The options that the providers of all clouds share."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.block_options import BlockOptions


@dataclass(frozen=True, slots=True)
class CloudOptions(BlockOptions):
    """The options of all providers, and the fate of a machine after its job.

    Attributes:
        linger: Whether machines stay on when their jobs have ended.
    """

    linger: bool = False
