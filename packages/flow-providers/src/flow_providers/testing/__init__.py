"""The contract that every provider passes, to inherit from (pytest needed): ``ProviderContract``.

Simulated schedulers and clouds, and a provider whose jobs a test moves from state to state, are in ``flow-testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_providers.lazy import loading

if TYPE_CHECKING:
    from flow_providers.testing.contract import ProviderContract as ProviderContract

_HOMES = {"ProviderContract": "flow_providers.testing.contract"}

__all__ = [*_HOMES]
__getattr__, __dir__ = loading(__name__, _HOMES)
