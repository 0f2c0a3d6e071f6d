"""The shallow paths that scripts use lead to the same objects as the distributions' own."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

DOORS = [
    ("flow", "App", "flow_core"),
    ("flow.app.app", "python_app", "flow_core"),
    ("flow.app.errors", "AppFailure", "flow_core.errors"),
    ("flow.app.futures", "DataFuture", "flow_core"),
    ("flow.dataflow.dflow", "DataFlowKernelLoader", "flow_core.kernel.loaded"),
    ("flow.dataflow.error", "DependencyError", "flow_core.errors"),
    ("flow.dataflow.futures", "AppFuture", "flow_core"),
    ("flow.dataflow.memoization", "Memoizer", "flow_core.interfaces.memoizer"),
    ("flow", "map", "flow_core"),
    ("flow.config", "Config", "flow_core"),
    ("flow.executors", "HighThroughputExecutor", "flow_executors"),
    ("flow.executors", "ThreadPoolExecutor", "flow_core.executors.threads"),
    ("flow.executors.threads", "ThreadPoolExecutor", "flow_core.executors.threads"),
    ("flow.providers", "LocalProvider", "flow_providers"),
    ("flow.channels", "LocalChannel", "flow_providers.channels"),
    ("flow.launchers", "SingleNodeLauncher", "flow_providers.launchers"),
    ("flow.addresses", "address_by_hostname", "flow_executors.addresses"),
    ("flow.monitoring", "MonitoringHub", "flow_monitor"),
    ("flow.data_provider.files", "File", "flow_core.files"),
    ("flow.data_provider.staging", "Staging", "flow_core.interfaces.staging"),
    ("flow.data_provider.data_manager", "default_staging", "flow_core.staging.defaults"),
    ("flow.data_provider.http", "HTTPInTaskStaging", "flow_staging"),
    ("flow.data_provider.ftp", "FTPInTaskStaging", "flow_staging"),
    ("flow.data_provider.rsync", "RSyncStaging", "flow_staging"),
    ("flow.data_provider.zip", "ZipFileStaging", "flow_staging"),
    ("flow.data_provider.globus", "GlobusStaging", "flow_staging"),
    ("flow.data_provider.s3", "S3Staging", "flow_staging"),
    ("flow.monitoring.monitoring", "MonitoringHub", "flow_monitor"),
    ("flow.utils", "get_all_checkpoints", "flow_core.checkpoint.find"),
    ("flow.errors", "DependencyError", "flow_core.errors"),
    ("flow.executors.base", "Executor", "flow_core.interfaces.executor"),
    ("flow.executors.errors", "ExecutorError", "flow_core.errors"),
    ("flow.executors.errors", "ScalingFailed", "flow_core.errors"),
    ("flow.executors.errors", "DeserializationError", "flow_core.errors"),
    ("flow.executors.errors", "ControllerError", "flow_executors.errors"),
    ("flow.executors.errors", "InsufficientMPIRanks", "flow_executors.errors"),
    ("flow.executors.errors", "BadMessage", "flow_executors.errors"),
    ("flow.executors.exceptions", "TaskExecException", "flow_executors.errors"),
    ("flow.executors.high_throughput.executor", "HighThroughputExecutor", "flow_executors"),
    ("flow.executors.high_throughput.errors", "WorkerLost", "flow_core.errors"),
    ("flow.executors.high_throughput.errors", "ManagerLost", "flow_core.errors"),
    ("flow.providers.provider_base", "ExecutionProvider", "flow_providers"),
    ("flow.providers.provider_base", "JobState", "flow_providers"),
    ("flow.providers.error", "ExecutionProviderException", "flow_providers.errors"),
    ("flow.providers.error", "OptionalModuleMissing", "flow_providers.errors"),
    ("flow.providers.error", "ScaleOutFailed", "flow_providers.errors"),
    ("flow.providers.error", "SchedulerMissingArgs", "flow_providers.errors"),
    ("flow.providers.error", "ScriptPathError", "flow_providers.errors"),
    ("flow.channels.base", "Channel", "flow_providers.channels"),
    ("flow.channels.errors", "ChannelError", "flow_providers.errors"),
    ("flow.channels.errors", "BadHostKeyException", "flow_providers.errors"),
    ("flow.channels.errors", "AuthException", "flow_providers.errors"),
    ("flow.channels.errors", "FileCopyException", "flow_providers.errors"),
    ("flow.launchers.launchers", "Launcher", "flow_providers"),
    ("flow.launchers.launchers", "SrunLauncher", "flow_providers.launchers"),
    ("flow.launchers.error", "BadLauncher", "flow_providers.errors"),
]


@pytest.mark.parametrize(("door", "name", "home"), DOORS)
def test_a_door_leads_home(door: str, name: str, home: str) -> None:
    assert getattr(import_module(door), name) is getattr(import_module(home), name)


def test_the_oldest_name_of_the_base_of_executors_errors_is_there() -> None:
    from flow.executors.exceptions import ExecutorException
    from flow_core.errors import ExecutorError

    assert ExecutorException is ExecutorError


def test_the_data_manager_is_the_manager_of_staging() -> None:
    from flow.data_provider.data_manager import DataManager
    from flow_core.staging.manager import StagingManager

    assert DataManager is StagingManager


@pytest.mark.parametrize("module", ["flow", "flow.executors", "flow.providers", "flow.channels", "flow.launchers"])
def test_an_unknown_name_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(module).no_such_name


def test_a_star_import_does_not_hide_the_builtin_map() -> None:
    names: dict[str, object] = {}
    exec("from flow import *", names)
    assert "map" not in names
    assert {"python_app", "bash_app", "App", "Config", "load"} <= names.keys()


def test_its_modules_need_no_import_of_their_own(tmp_path: Path) -> None:
    code = "import flow; print(flow.errors.DependencyError.__name__, flow.utils.get_all_checkpoints())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.split() == ["DependencyError", "[]"]


@pytest.mark.parametrize("name", ["local_threads", "local_htex"])
def test_packaged_configurations_are_configurations(name: str) -> None:
    from flow_core.config import Config

    assert isinstance(import_module(f"flow.configs.{name}").config, Config)
