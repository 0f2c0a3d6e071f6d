"""Web pages on the monitoring database of Flow. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_viz.app import create_app as create_app

__version__ = "0.1.1"

_HOMES = {"create_app": "flow_viz.app"}

__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = loading(__name__, _HOMES)
