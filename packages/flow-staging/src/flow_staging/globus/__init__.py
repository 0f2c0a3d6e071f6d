"""Transfers between Globus endpoints. Needs the extra ``globus`` (globus-sdk)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_staging.globus.transfer import GlobusStaging as GlobusStaging

_HOMES = {"GlobusStaging": "flow_staging.globus.transfer"}

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
