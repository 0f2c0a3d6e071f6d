"""For tests: a LowLatencyExecutor on this machine with short heartbeats."""

from __future__ import annotations

from flow_executors.llex import LowLatencyExecutor
from flow_providers.local.provider import LocalProvider


def make_direct_executor(**options: object) -> LowLatencyExecutor:
    """Return an executor of two workers; options replace those of the tests."""
    chosen: dict[str, object] = {
        "label": "llex",
        "max_workers": 2,
        "cores_per_worker": 0.5,
        "provider": LocalProvider(max_blocks=1),
        "heartbeat_period": 0.2,
        "heartbeat_threshold": 4,
    }
    return LowLatencyExecutor(**{**chosen, **options})  # type: ignore[arg-type]  # checked by the constructor
