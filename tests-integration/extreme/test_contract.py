"""The executor contract over an ExtremeScaleExecutor: client, interchange, and an MPI job of three ranks."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from flow_core.interfaces.executor import Executor
from flow_core.testing.contracts import ExecutorContract
from flow_executors.testing.extreme_run import make_extreme_executor

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


class TestExtremeScaleExecutor(ExecutorContract):
    isolates_tasks = True
    kills_started = True
    random_order_settings: ClassVar[settings] = settings(
        max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )

    def make_executor(self) -> Executor:
        return make_extreme_executor()
