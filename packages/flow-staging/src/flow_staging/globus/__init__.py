"""Transfers between Globus endpoints. Needs the extra ``globus`` (globus-sdk)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_staging.globus.transfer import GlobusStaging as GlobusStaging

_HOMES = {"GlobusStaging": "flow_staging.globus.transfer"}

__all__ = [*_HOMES]
__getattr__, __dir__ = loading(__name__, _HOMES)
