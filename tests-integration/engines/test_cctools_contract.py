"""The executor contract on a real Work Queue and a real TaskVine, whose workers share nothing with the script."""

from __future__ import annotations

from typing import ClassVar

import pytest
from cctools_executors import make, need_cctools
from hypothesis import HealthCheck, settings

from flow_core.interfaces.executor import Executor
from flow_core.testing.contracts import ExecutorContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


class _OnCctools(ExecutorContract):
    isolates_tasks = True
    kills_started = True
    # Each example starts a manager and a worker.
    random_order_settings: ClassVar[settings] = settings(
        max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    kind: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def tools(self) -> None:
        need_cctools()

    def make_executor(self) -> Executor:
        return make(self.kind)


class TestWorkQueueExecutor(_OnCctools):
    kind = "work_queue"


class TestTaskVineExecutor(_OnCctools):
    kind = "vine"
