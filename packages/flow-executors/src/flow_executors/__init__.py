"""The pilot-job executors of Flow: high throughput and low latency, over ZeroMQ. Names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_core.executors.threads import ThreadPoolExecutor as ThreadPoolExecutor
    from flow_executors.htex import HighThroughputExecutor as HighThroughputExecutor
    from flow_executors.llex import LowLatencyExecutor as LowLatencyExecutor

__version__ = "0.1.0"

_HOMES = {
    "HighThroughputExecutor": "flow_executors.htex",
    "LowLatencyExecutor": "flow_executors.llex",
    "ThreadPoolExecutor": "flow_core.executors.threads",
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
