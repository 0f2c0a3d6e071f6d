"""Options of executors on ipyparallel, Work Queue and TaskVine change what starts, or are said to change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError
from flow_core.interfaces.call import DEFAULT_SPEC
from flow_core.option_records import options_of
from flow_core.testing import RecordingListener, make_context
from flow_executors import Controller, IPyParallelExecutor, TaskVineExecutor, TurbineExecutor, WorkQueueExecutor
from flow_executors.engines.cctools import CctoolsEngine, _Out
from flow_executors.engines.engine import Batch
from flow_executors.engines.ipyparallel import IPyParallelEngine
from flow_executors.engines.runtime import EnginePlan
from flow_providers.local.provider import LocalProvider


def decide(*_args: object) -> None:
    """Decide nothing: a block_error_handler."""


SHARED: dict[str, Any] = {
    "label": "other",
    "provider": LocalProvider(max_blocks=3),
    "working_dir": "/elsewhere",
    "storage_access": [],
    "managed": False,
    "max_batch": 5,
    "python": "python3.99",
    "block_error_handler": decide,
    "block_start_timeout": 7.0,
    "recovery_timeout": 7.0,
}
OF_CCTOOLS: dict[str, Any] = {
    **SHARED,
    "max_workers": 3,
    "cores_per_worker": 2.0,
    "mem_per_worker": 0.5,
    "project_name": "mine",
    "project_password": "secret",
    "port": 9123,
    "host": "here",
    "env": {"A": "b"},
    "shared_fs": True,
    "init_command": "module load x",
    "full_debug": False,
    "learn_sizes": True,
    "gpus_per_node": 1,
    "worker_options": ("--wall-time", "60"),
    "worker_program": "elsewhere/worker",
    "ssl_certificate": "cert.pem",
}
OF_IPP: dict[str, Any] = {
    **SHARED,
    "engine_dir": "/engines",
    "engine_debug_level": "DEBUG",
    "workers_per_node": 2,
    "container_image": "image",
}
OTHER: dict[type[Any], dict[str, Any]] = {
    WorkQueueExecutor: OF_CCTOOLS,
    TaskVineExecutor: {**OF_CCTOOLS, "peer_transfers": False},
    IPyParallelExecutor: OF_IPP,
}
"""Another value of each option than its default."""

ELSEWHERE: dict[type[Any], set[str]] = {
    WorkQueueExecutor: {"source", "see_worker_output", "manager_python", "project_password_file", "ssl_key"},
    TaskVineExecutor: {"source", "see_worker_output", "manager_python", "project_password_file", "ssl_key"},
    IPyParallelExecutor: {"client", "controller", "max_workers", "cores_per_worker", "mem_per_worker"},
}
"""What is tested on real ones, or below."""

CASES = [pytest.param(kind, name, id=f"{kind.__name__} {name}") for kind, options in OTHER.items() for name in options]
READ_BY_THE_KERNEL = ("label", "storage_access", "working_dir", "managed", "carries_files")


def observed(kind: type[Any], folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what an executor of these options is started with, and what its engine tells others."""
    plans: list[EnginePlan] = []
    monkeypatch.setattr("flow_executors.engines.executor.EngineRuntime", lambda plan, _context: plans.append(plan))
    if "ssl_certificate" in options:
        options = {**options, "ssl_key": "key.pem"}
    executor = kind(**options)
    context = make_context(folder, RecordingListener(), label="executor")
    executor.start(context)
    (plan,) = plans
    found: dict[str, object] = {one.name: getattr(plan, one.name) for one in dataclasses.fields(plan)}
    found["make"] = ""  # a method of the executor
    engine: Any = IPyParallelEngine(executor, context)
    if kind is not IPyParallelExecutor:
        engine = CctoolsEngine(executor, "taskvine" if kind is TaskVineExecutor else "work_queue", context)
        engine._home.mkdir(parents=True, exist_ok=True)
        engine._password_file()
        found["password"] = engine._password if options.get("project_password") else ""
        found["opening"] = engine._opening("")
        batch = Batch(1, [b""], DEFAULT_SPEC, "", "function")
        found["order"] = engine._order(_Out(batch, engine._home, None))
    found["command"] = engine.worker_command("0")
    found.update({name: getattr(executor, name) for name in READ_BY_THE_KERNEL})
    return {name: repr(value) for name, value in found.items()}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_option_changes_something(
    kind: type[Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = {"provider": LocalProvider(max_blocks=1)}
    before = observed(kind, tmp_path, usual, monkeypatch)
    assert before == observed(kind, tmp_path, usual, monkeypatch)
    assert before != observed(kind, tmp_path, usual | {name: OTHER[kind][name]}, monkeypatch)


@pytest.mark.parametrize("kind", OTHER)
def test_no_option_is_left_out(kind: type[Any]) -> None:
    assert {option.name for option in options_of(kind)} == OTHER[kind].keys() | ELSEWHERE[kind]


@pytest.mark.parametrize("name", ["max_workers", "cores_per_worker", "mem_per_worker"])
def test_what_says_nothing_of_engines_is_named(name: str) -> None:
    executor = IPyParallelExecutor(**{name: 3})
    assert any(one.startswith(f"{name}=3 has no effect") for one in executor.ineffective_options())


def test_what_says_something_of_blocks_alone_is_named() -> None:
    executor = WorkQueueExecutor(host="here", gpus_per_node=1, working_dir="/elsewhere", max_workers=2)
    said = " ".join(executor.ineffective_options())
    for name in ("host", "gpus_per_node", "working_dir", "max_workers"):
        assert f"{name}=" in said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"project_password": "a", "project_password_file": "b"}, "give one"),
        ({"ssl_certificate": "a"}, "belong together"),
        ({"port": 10**6}, "no port"),
        ({"port": -1}, "port"),
        ({"env": {"A": 1}}, "env"),
        ({"label": "a/b"}, "directory"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], text: str) -> None:
    for kind in (WorkQueueExecutor, TaskVineExecutor):
        with pytest.raises(ConfigurationError, match=text):
            kind(**options)


def test_a_controller_listens_where_it_is_told() -> None:
    usual = Controller().words(here=True)
    assert Controller(interfaces="10.0.0.1").words(here=True) != usual
    assert "--location=10.0.0.2" in Controller(public_ip="10.0.0.2").words(here=True)
    assert Controller().words(here=False) != usual


def test_turbine_names_what_to_use_instead() -> None:
    with pytest.raises(ConfigurationError, match="ExtremeScaleExecutor"):
        TurbineExecutor(label="turbine", managed=True)
