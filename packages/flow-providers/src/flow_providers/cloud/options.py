"""The options that the providers of all clouds share."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.block_options import BlockOptions


@dataclass(frozen=True, slots=True)
class CloudOptions(BlockOptions):
    """Those of all providers, and what becomes of a machine.

    Attributes:
        linger: Whether machines stay on when their jobs have ended.
    """

    linger: bool = False
