"""The executor contract on a real Dask cluster of somebody's, whose workers have one thread each."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings

from flow_core.interfaces.executor import Executor
from flow_core.testing.contracts import ExecutorContract
from flow_executors import DaskExecutor

pytestmark = [pytest.mark.services, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]


class TestDaskExecutor(ExecutorContract):
    isolates_tasks = True
    kills_started = True
    # A worker that was killed takes some seconds to come again.
    random_order_settings: ClassVar[settings] = settings(
        max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    cluster: Any = None

    @pytest.fixture(autouse=True)
    def two_workers(self, dask_cluster: Any) -> None:
        """Begin with both workers, whatever the test before has done to them."""
        type(self).cluster = dask_cluster
        from distributed import Client

        with Client(dask_cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)

    def make_executor(self) -> Executor:
        return DaskExecutor(label="dask", address=self.cluster.scheduler_address, security=self.cluster.security)

    def make_wide(self) -> tuple[Executor, float]:
        pytest.skip("a worker of this cluster runs one task, whatever that asks for: test_dask has a wide one")
