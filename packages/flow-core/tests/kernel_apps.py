"""The apps that tests of the kernel call, and what they ask of its fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flow_core as flow
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.testing import MemoryExecutor

Load = Callable[..., DataFlowKernel]


@flow.python_app
def add(x: int, y: int = 1) -> int:
    return x + y


@flow.python_app
def divide(x: float, y: float) -> float:
    return x / y


@flow.python_app
def total(inputs: list[int]) -> int:
    return sum(inputs)


def hold(kernel_executor: MemoryExecutor) -> Any:
    return kernel_executor.waiting[0]
