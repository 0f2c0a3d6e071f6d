"""The executors, under the path that scripts use; each is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_executors import (
        HighThroughputExecutor as HighThroughputExecutor,
        ThreadPoolExecutor as ThreadPoolExecutor,
    )

__all__ = ["HighThroughputExecutor", "ThreadPoolExecutor"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import flow_executors

    value: object = getattr(flow_executors, name)
    return value
