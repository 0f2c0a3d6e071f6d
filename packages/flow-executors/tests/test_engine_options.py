"""Every option of executors on engines changes how they are started, or what others read of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError
from flow_core.option_records import options_of
from flow_core.testing import RecordingListener, make_context
from flow_executors import DaskExecutor, RayExecutor
from flow_executors.engines.dask import DaskEngine
from flow_executors.engines.ray import RayEngine
from flow_executors.engines.runtime import EnginePlan
from flow_providers.local.provider import LocalProvider


def decide(*_args: object) -> None:
    """Decide nothing: a block_error_handler."""


OTHER: dict[str, Any] = {
    "label": "other",
    "provider": LocalProvider(max_blocks=3),
    "working_dir": "/elsewhere",
    "storage_access": [],
    "managed": False,
    "max_batch": 5,
    "max_workers": 3,
    "cores_per_worker": 2.0,
    "mem_per_worker": 0.5,
    "python": "python3.99",
    "block_error_handler": decide,
    "block_start_timeout": 7.0,
    "recovery_timeout": 7.0,
    "available_accelerators": 1,
    "resources": {"license": 2},
}
"""Another value of each option than its default; the others name a cluster, and are tested on one."""

ON_CLUSTERS = {"address", "client", "security", "host"}
READ_BY_THE_KERNEL = ("label", "storage_access", "working_dir", "managed")


def observed(
    folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: Any = DaskExecutor
) -> dict[str, str]:
    """Return what an executor of these options is started with, and the command of its workers."""
    plans: list[EnginePlan] = []
    monkeypatch.setattr("flow_executors.engines.executor.EngineRuntime", lambda plan, _context: plans.append(plan))
    executor = kind(**({"max_workers": 2} | options))
    context = make_context(folder, RecordingListener(), label="executor")
    executor.start(context)
    (plan,) = plans
    found: dict[str, object] = {one.name: getattr(plan, one.name) for one in dataclasses.fields(plan)}
    found["make"] = ""  # a method of the executor
    engine = DaskEngine(executor, context) if kind is DaskExecutor else RayEngine(executor, context)
    monkeypatch.setattr(engine, "_prefix", "flow", raising=False)
    found["command"] = engine.worker_command("0")
    found.update({name: getattr(executor, name) for name in READ_BY_THE_KERNEL})
    return {name: repr(value) for name, value in found.items()}


OF_RAY = {name: value for name, value in OTHER.items() if name != "available_accelerators"} | {"gpus_per_node": 2}


@pytest.mark.parametrize("name", OF_RAY)
def test_an_option_of_ray_changes_something(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = {} if name == "provider" else {"provider": LocalProvider(max_blocks=1)}
    usual = observed(tmp_path, provider, monkeypatch, RayExecutor)
    assert usual == observed(tmp_path, provider, monkeypatch, RayExecutor)
    assert usual != observed(tmp_path, provider | {name: OF_RAY[name]}, monkeypatch, RayExecutor)


def test_an_address_is_no_option_beside_those_of_a_cluster_of_its_own() -> None:
    executor = RayExecutor(address="auto", host="h", gpus_per_node=1, resources={"a": 1})
    assert len(executor.ineffective_options()) == 3
    assert {option.name for option in options_of(RayExecutor)} == OF_RAY.keys() | {"address", "host"}


@pytest.mark.parametrize("name", OTHER)
def test_an_option_changes_something(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = {} if name == "provider" else {"provider": LocalProvider(max_blocks=1)}
    usual = observed(tmp_path, provider, monkeypatch)
    assert usual == observed(tmp_path, provider, monkeypatch)
    assert usual != observed(tmp_path, provider | {name: OTHER[name]}, monkeypatch)


def test_no_option_is_left_out() -> None:
    assert {option.name for option in options_of(DaskExecutor)} == OTHER.keys() | ON_CLUSTERS


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"address": "tcp://h:1", "client": object()}, "give one"),
        ({"client": object()}, "no distributed.Client"),
        ({"address": "tcp://h:1", "provider": LocalProvider()}, "would start nothing"),
        ({"max_batch": 0}, "at least 1"),
        ({"max_batch": 10**9}, "at most"),
        ({"resources": {"a b": 1}}, "without blanks"),
        ({"resources": {"a": 0}}, "above 0"),
        ({"label": "a/b"}, "directory"),
        ({"cores_per_worker": 0}, "above 0"),
        ({"provider": LocalProvider(max_blocks=0, init_blocks=0)}, "max_blocks"),
        ({"provider": "slurm"}, "no provider"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        DaskExecutor(**options)


def test_options_of_blocks_are_said_to_change_nothing_on_a_cluster_of_others() -> None:
    executor = DaskExecutor(address="tcp://h:1", max_workers=3, resources={"a": 1}, host="h")
    said = " ".join(executor.ineffective_options())
    for name in ("max_workers", "resources", "host"):
        assert f"{name}=" in said
