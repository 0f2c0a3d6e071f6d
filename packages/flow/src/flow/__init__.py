"""Flow: parallel scripting in Python. One import for scripts; every name is loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_core import (
        AUTO_LOGNAME as AUTO_LOGNAME,
        App as App,
        AppFuture as AppFuture,
        Config as Config,
        Container as Container,
        DataFlowKernel as DataFlowKernel,
        DataFuture as DataFuture,
        Directory as Directory,
        File as File,
        FlowPoolExecutor as FlowPoolExecutor,
        Glob as Glob,
        Requeue as Requeue,
        TaskView as TaskView,
        bash_app as bash_app,
        block_is_ending as block_is_ending,
        clear as clear,
        dfk as dfk,
        join_app as join_app,
        load as load,
        map as map,
        mpi_app as mpi_app,
        on_block_end as on_block_end,
        python_app as python_app,
        set_file_logger as set_file_logger,
        set_stream_logger as set_stream_logger,
    )
    from flow_executors import (
        HighThroughputExecutor as HighThroughputExecutor,
        LowLatencyExecutor as LowLatencyExecutor,
        ThreadPoolExecutor as ThreadPoolExecutor,
    )
    from flow_monitor import MonitoringHub as MonitoringHub

__version__ = "0.1.1"

_HOMES = {
    "python_app": "flow_core",
    "bash_app": "flow_core",
    "join_app": "flow_core",
    "mpi_app": "flow_core",
    "App": "flow_core",
    "AUTO_LOGNAME": "flow_core",
    "Config": "flow_core",
    "Container": "flow_core",
    "Directory": "flow_core",
    "File": "flow_core",
    "Glob": "flow_core",
    "AppFuture": "flow_core",
    "DataFuture": "flow_core",
    "DataFlowKernel": "flow_core",
    "load": "flow_core",
    "clear": "flow_core",
    "dfk": "flow_core",
    "map": "flow_core",
    "Requeue": "flow_core",
    "FlowPoolExecutor": "flow_core",
    "TaskView": "flow_core",
    "on_block_end": "flow_core",
    "block_is_ending": "flow_core",
    "set_stream_logger": "flow_core",
    "set_file_logger": "flow_core",
    "ThreadPoolExecutor": "flow_executors",
    "HighThroughputExecutor": "flow_executors",
    "LowLatencyExecutor": "flow_executors",
    "MonitoringHub": "flow_monitor",
}

_MODULES = frozenset(
    (
        "addresses",
        "app",
        "channels",
        "config",
        "data_provider",
        "dataflow",
        "errors",
        "executors",
        "launchers",
        "monitoring",
        "providers",
        "utils",
    )
)

__all__ = [*(name for name in _HOMES if name != "map"), "__version__"]  # a star must not hide the builtin map
__getattr__, __dir__ = loading(__name__, {**_HOMES, **dict.fromkeys(_MODULES)})
