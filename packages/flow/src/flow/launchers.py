"""The launchers, under the path that scripts use; each is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flow_providers.launchers as _home

if TYPE_CHECKING:
    from flow_providers.launchers import *  # noqa: F403 - what it has is its own to say

__all__ = list(_home.__all__)


def __getattr__(name: str) -> object:
    return getattr(_home, name)
