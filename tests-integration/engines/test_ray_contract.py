"""The executor contract on a real Ray cluster of somebody's, to which the script is connected."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from flow_core.interfaces.executor import Executor
from flow_core.testing.contracts import ExecutorContract
from flow_executors import RayExecutor

pytestmark = [pytest.mark.services, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]


class TestRayExecutor(ExecutorContract):
    isolates_tasks = True
    kills_started = True
    # A worker that was killed takes some seconds to come again.
    random_order_settings: ClassVar[settings] = settings(
        max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    address = ""

    @pytest.fixture(autouse=True)
    def cluster(self, ray_cluster: str) -> None:
        """Take the cluster."""
        type(self).address = ray_cluster

    def make_executor(self) -> Executor:
        return RayExecutor(label="ray", address=self.address)
