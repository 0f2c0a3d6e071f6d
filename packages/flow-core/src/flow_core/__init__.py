"""Apps, futures, files and the dataflow kernel of Flow. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_core.apps.decorators import (
        App as App,
        bash_app as bash_app,
        join_app as join_app,
        mpi_app as mpi_app,
        python_app as python_app,
    )
    from flow_core.apps.special import AUTO_LOGNAME as AUTO_LOGNAME
    from flow_core.config import Config as Config
    from flow_core.errors import Requeue as Requeue
    from flow_core.files import Directory as Directory, File as File, Glob as Glob
    from flow_core.futures.app_future import AppFuture as AppFuture
    from flow_core.futures.data_future import DataFuture as DataFuture
    from flow_core.interfaces.container import Container as Container
    from flow_core.kernel.kernel import DataFlowKernel as DataFlowKernel
    from flow_core.kernel.loaded import clear as clear, dfk as dfk, load as load
    from flow_core.kernel.mapping import map as map
    from flow_core.kernel.pool_executor import FlowPoolExecutor as FlowPoolExecutor
    from flow_core.kernel.task_view import TaskView as TaskView
    from flow_core.observe.logging import (
        set_file_logger as set_file_logger,
        set_stream_logger as set_stream_logger,
    )
    from flow_core.remote.block_end import block_is_ending as block_is_ending, on_block_end as on_block_end

__version__ = "0.1.1"

# Where each public name is defined. Nothing is imported until it is used: workers import parts of this package too.
_HOMES = {
    "python_app": "flow_core.apps.decorators",
    "bash_app": "flow_core.apps.decorators",
    "join_app": "flow_core.apps.decorators",
    "mpi_app": "flow_core.apps.decorators",
    "App": "flow_core.apps.decorators",
    "AUTO_LOGNAME": "flow_core.apps.special",
    "Config": "flow_core.config",
    "Directory": "flow_core.files",
    "File": "flow_core.files",
    "Glob": "flow_core.files",
    "AppFuture": "flow_core.futures.app_future",
    "DataFuture": "flow_core.futures.data_future",
    "Container": "flow_core.interfaces.container",
    "DataFlowKernel": "flow_core.kernel.kernel",
    "load": "flow_core.kernel.loaded",
    "clear": "flow_core.kernel.loaded",
    "dfk": "flow_core.kernel.loaded",
    "map": "flow_core.kernel.mapping",
    "FlowPoolExecutor": "flow_core.kernel.pool_executor",
    "TaskView": "flow_core.kernel.task_view",
    "Requeue": "flow_core.errors",
    "on_block_end": "flow_core.remote.block_end",
    "block_is_ending": "flow_core.remote.block_end",
    "set_stream_logger": "flow_core.observe.logging",
    "set_file_logger": "flow_core.observe.logging",
}

__all__ = [*(name for name in _HOMES if name != "map"), "__version__"]  # a star must not hide the builtin map
__getattr__, __dir__ = loading(__name__, _HOMES)
