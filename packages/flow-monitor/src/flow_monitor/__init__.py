"""Monitoring for Flow: the events of a run in a database, and typed queries on it. Public names are lazy (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_monitor.errors import MonitorError as MonitorError
    from flow_monitor.hub import MonitoringHub as MonitoringHub
    from flow_monitor.project.rebuild import rebuild as rebuild
    from flow_monitor.queries.database import Database as Database, open_database as open_database

__version__ = "0.1.1"

_HOMES = {
    "MonitorError": "flow_monitor.errors",
    "MonitoringHub": "flow_monitor.hub",
    "rebuild": "flow_monitor.project.rebuild",
    "Database": "flow_monitor.queries.database",
    "open_database": "flow_monitor.queries.database",
}

__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = loading(__name__, _HOMES)
