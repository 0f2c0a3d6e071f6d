"""The pilot-job executors of Flow: high throughput, low latency, and MPI jobs, over ZeroMQ. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_core.executors.futures import FuturesExecutor as FuturesExecutor
    from flow_core.executors.threads import ThreadPoolExecutor as ThreadPoolExecutor
    from flow_executors.engines.dask import DaskExecutor as DaskExecutor
    from flow_executors.engines.ipp_controller import Controller as Controller
    from flow_executors.engines.ipyparallel import IPyParallelExecutor as IPyParallelExecutor
    from flow_executors.engines.ray import RayExecutor as RayExecutor
    from flow_executors.engines.turbine import TurbineExecutor as TurbineExecutor
    from flow_executors.engines.work_queue import (
        TaskVineExecutor as TaskVineExecutor,
        WorkQueueExecutor as WorkQueueExecutor,
    )
    from flow_executors.extreme import ExtremeScaleExecutor as ExtremeScaleExecutor
    from flow_executors.htex import HighThroughputExecutor as HighThroughputExecutor
    from flow_executors.llex import LowLatencyExecutor as LowLatencyExecutor
    from flow_executors.scaling.windowed_errors import WindowedErrorHandler as WindowedErrorHandler

__version__ = "0.1.1"

_HOMES = {
    "FuturesExecutor": "flow_core.executors.futures",
    "Controller": "flow_executors.engines.ipp_controller",
    "DaskExecutor": "flow_executors.engines.dask",
    "IPyParallelExecutor": "flow_executors.engines.ipyparallel",
    "TaskVineExecutor": "flow_executors.engines.work_queue",
    "TurbineExecutor": "flow_executors.engines.turbine",
    "WorkQueueExecutor": "flow_executors.engines.work_queue",
    "ExtremeScaleExecutor": "flow_executors.extreme",
    "HighThroughputExecutor": "flow_executors.htex",
    "LowLatencyExecutor": "flow_executors.llex",
    "RayExecutor": "flow_executors.engines.ray",
    "ThreadPoolExecutor": "flow_core.executors.threads",
    "WindowedErrorHandler": "flow_executors.scaling.windowed_errors",
}

__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = loading(__name__, _HOMES)
