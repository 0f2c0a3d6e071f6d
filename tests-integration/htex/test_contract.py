"""The executor contract over real processes and sockets: client, interchange, manager, workers, local blocks."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import HealthCheck, settings

from flow_core.interfaces.executor import Executor
from flow_core.testing.contracts import ExecutorContract
from flow_executors import HighThroughputExecutor
from flow_providers.local.provider import LocalProvider


class TestHighThroughputExecutor(ExecutorContract):
    isolates_tasks = True
    kills_started = True
    random_order_settings: ClassVar[settings] = settings(
        max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )

    def make_executor(self) -> Executor:
        return self._executor(2)

    def make_wide(self) -> tuple[Executor, float]:
        return self._executor(3), 1.5

    def _executor(self, workers: int) -> Executor:
        return HighThroughputExecutor(
            label="htex",
            max_workers=workers,
            cores_per_worker=0.5,
            provider=LocalProvider(max_blocks=1),
            heartbeat_period=0.5,
            heartbeat_threshold=5,
        )
