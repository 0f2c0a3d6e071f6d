"""Packages that only some providers and channels need: imported on use, named when they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from flow_providers.errors import OptionalModuleMissing


def optional_module(name: str, *, extra: str, purpose: str) -> Any:  # the modules have no types of their own
    """Import a module.

    Args:
        name: Dotted name.
        extra: The extra of ``flow-providers`` that brings it.
        purpose: The class that needs it.

    Raises:
        OptionalModuleMissing: it is not installed; the message says which extra to install.
    """
    try:
        return import_module(name)
    except ImportError as error:
        # The module that is missing may be one that the named one imports.
        missing = error.name or name
        raise OptionalModuleMissing(
            [missing], f"{purpose} needs it; install flow-providers with its extra [{extra}]"
        ) from error
