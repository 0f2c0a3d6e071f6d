"""Monitoring for Flow: the events of a run in a database, and typed queries on it. Public names are lazy (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_monitor.errors import MonitorError as MonitorError
    from flow_monitor.hub import MonitoringHub as MonitoringHub
    from flow_monitor.project.rebuild import rebuild as rebuild
    from flow_monitor.queries.database import Database as Database, open_database as open_database

__version__ = "0.1.0"

_HOMES = {
    "MonitorError": "flow_monitor.errors",
    "MonitoringHub": "flow_monitor.hub",
    "rebuild": "flow_monitor.project.rebuild",
    "Database": "flow_monitor.queries.database",
    "open_database": "flow_monitor.queries.database",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
