"""The executor contract on a real ipyparallel cluster of somebody's, of two engines that are started again."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings

from flow_core.interfaces.executor import Executor
from flow_core.testing.contracts import ExecutorContract
from flow_executors import IPyParallelExecutor

pytestmark = [pytest.mark.services, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]


class TestIPyParallelExecutor(ExecutorContract):
    isolates_tasks = True
    random_order_settings: ClassVar[settings] = settings(
        max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    client: Any = None

    @pytest.fixture(autouse=True)
    def two_engines(self, ipp_client: Any) -> None:
        """Begin with both engines, whatever the test before has done to them."""
        type(self).client = ipp_client
        ipp_client.wait_for_engines(2, timeout=60)

    def make_executor(self) -> Executor:
        return IPyParallelExecutor(label="ipp", client=self.client)
