"""Every option of every executor of blocks changes how it is started, or what others read, or says that it does not."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow_core import without_effect
from flow_core.errors import ConfigurationError
from flow_core.testing import RecordingListener, make_context
from flow_executors import ExtremeScaleExecutor, HighThroughputExecutor, LowLatencyExecutor
from flow_executors.runtime import LaunchPlan
from flow_providers.local.provider import LocalProvider

KINDS = [HighThroughputExecutor, LowLatencyExecutor, ExtremeScaleExecutor]
NEEDED: dict[type, dict[str, Any]] = {ExtremeScaleExecutor: {"ranks_per_node": 3}}
"""What an executor needs to be made at all."""
REFUSED = {
    (ExtremeScaleExecutor, name)
    for name in (
        "container",
        "cores_per_worker",
        "max_workers",
        "max_workers_per_node",
        "mem_per_worker",
        "hold_bad_nodes",
    )
}
"""Options that an executor has of its base, and of which it takes only the default."""


def decide(*_args: object) -> None:
    """Decide nothing: a block_error_handler."""


OTHER: dict[str, Any] = {
    "address": "10.0.0.1",
    "available_accelerators": 3,
    "block_error_handler": decide,
    "block_start_timeout": 7.0,
    "bootstrap": True,
    "code": ["json"],
    "container": "image:1",
    "cores_per_worker": 2.0,
    "cpu_affinity": "block",
    "drain_period": 99.0,
    "encrypted": False,
    "environment": __file__,
    "heartbeat_period": 7.0,
    "heartbeat_threshold": 77.0,
    "hold_bad_nodes": False,
    "interchange_port_range": (1, 2),
    "label": "other",
    "launch_cmd": "nice {python} -m {module} {options}",
    "loopback_address": "::1",
    "managed": False,
    "manager_selector": "block",
    "max_result_bytes": 1 << 20,
    "max_transfer_bytes": 1 << 20,
    "max_worker_log_bytes": 1 << 20,
    "max_workers": 3,
    "max_workers_per_node": 3,
    "mem_per_worker": 0.5,
    "mpi_launcher": "mpich",
    "poll_period": 1.0,
    "prefetch_capacity": 5,
    "provider": LocalProvider(max_blocks=3),
    "python": "python3",
    "ranks_per_node": 4,
    "recovery_timeout": 7.0,
    "sleep_threshold": 7777.0,
    "storage_access": [],
    "suppress_failure": False,
    "worker_debug": True,
    "worker_logdir_root": "/elsewhere",
    "worker_port_range": (40000, 40010),
    "worker_ports": (40000,),
    "working_dir": "/elsewhere",
}
"""Another value of each option than its default."""

READ_BY_THE_KERNEL = ("label", "storage_access", "working_dir", "managed", "carries_files")


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    return


def observed(kind: Any, folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return what an executor of these options hands to what runs it, with its managers' command line."""
    plans: list[LaunchPlan] = []
    monkeypatch.setattr(kind, "_make_runtime", lambda _self, plan, _context: plans.append(plan))
    monkeypatch.setattr("flow_executors.extreme.find_spec", lambda _name: object())
    executor = kind(**NEEDED.get(kind, {}) | options)
    context = make_context(folder, RecordingListener(), label="executor")
    executor.start(context)
    (plan,) = plans
    found: dict[str, object] = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    found["command"] = plan.command("0", 4000, "", context)
    found.update({name: getattr(executor, name) for name in READ_BY_THE_KERNEL})
    return {name: repr(value) for name, value in found.items()}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.__name__} {name}")
        for kind in KINDS
        for name in inspect.signature(kind).parameters
    ],
)
def test_an_option_changes_something_or_is_said_not_to(
    kind: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert name in OTHER, f"{kind.__name__} has a new option {name}: give another value of it in OTHER"
    monkeypatch.setattr("flow_executors.launching.packed_environment.check", lambda _path: "")
    usual = observed(kind, tmp_path, {}, monkeypatch)
    assert usual == observed(kind, tmp_path, {}, monkeypatch)
    if (kind, name) in REFUSED:
        value = True if name == "hold_bad_nodes" else OTHER[name]
        with pytest.raises(ConfigurationError, match="must be left out"):
            observed(kind, tmp_path, {name: value}, monkeypatch)
        return
    caplog.clear()
    other = observed(kind, tmp_path, {name: OTHER[name]}, monkeypatch)
    said = any(f"{name}={OTHER[name]!r} has no effect" in record.getMessage() for record in caplog.records)
    # What is for nodes that do not see the script's files is handed on here, too, and read there alone.
    assert (usual != other) != said or name == "max_transfer_bytes"


def test_no_value_is_given_of_options_that_are_gone() -> None:
    assert {name for kind in KINDS for name in inspect.signature(kind).parameters} == OTHER.keys()
