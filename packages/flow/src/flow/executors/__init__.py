"""The executors, under the path that scripts use; each is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flow_executors as _home

if TYPE_CHECKING:
    from flow_executors import (
        Controller as Controller,
        DaskExecutor as DaskExecutor,
        ExtremeScaleExecutor as ExtremeScaleExecutor,
        FuturesExecutor as FuturesExecutor,
        HighThroughputExecutor as HighThroughputExecutor,
        IPyParallelExecutor as IPyParallelExecutor,
        LowLatencyExecutor as LowLatencyExecutor,
        RayExecutor as RayExecutor,
        TaskVineExecutor as TaskVineExecutor,
        ThreadPoolExecutor as ThreadPoolExecutor,
        TurbineExecutor as TurbineExecutor,
        WindowedErrorHandler as WindowedErrorHandler,
        WorkQueueExecutor as WorkQueueExecutor,
    )

__all__ = list(_home.__all__)


def __getattr__(name: str) -> object:
    return getattr(_home, name)
