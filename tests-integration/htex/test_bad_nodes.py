"""Nodes that cannot run what others can: two managers on this machine, each on a node of its own name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow_core.interfaces.events import Event, EventKind, NodeHeld
from flow_core.interfaces.sinks import RunInfo
from flow_executors import HighThroughputExecutor
from flow_executors.client.node_memory import NAME
from flow_providers.local.provider import LocalProvider

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="names of nodes take root and unshare"
)

NODE = """#!/bin/bash
# the first block is on the node "good", which has the module; each other one on "bad", as a scheduler gives back
# the node that has just become free
if mkdir "{directory}/taken" 2>/dev/null; then
  name=good
  export PYTHONPATH="{directory}/modules:$PYTHONPATH"
else
  name=bad
fi
exec unshare --uts bash -c 'hostname "$0" && exec "$@"' "$name" {slow} "$@"
"""


@python_app
def needs(number: int) -> tuple[str, int]:
    import socket
    import time

    import flow_test_helper  # type: ignore[import-not-found]

    time.sleep(0.1)
    return socket.gethostname(), flow_test_helper.inc(number)


@python_app
def fails_there(number: int) -> str:
    import socket
    import time

    if socket.gethostname() == "bad":
        raise OSError("No space left on device")
    time.sleep(0.05)
    return socket.gethostname()


@python_app
def fails_too(number: int) -> str:
    import socket

    if socket.gethostname() == "bad":
        raise RuntimeError("no GPU")
    return socket.gethostname()


@python_app
def is_wrong(number: int) -> None:
    raise ValueError("always")


@python_app
def lasts() -> str:
    import socket
    import time

    time.sleep(1.0 if socket.gethostname() == "bad" else 0.05)
    return socket.gethostname()


class Holds:
    """A sink that keeps which nodes were held and freed."""

    wants = EventKind.NODE

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def start(self, run: RunInfo) -> None:
        """Nothing to open."""

    def emit(self, events: Sequence[Event]) -> None:
        self.told += [(one.executor, one.node, one.reason) for one in events if isinstance(one, NodeHeld)]

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self, timeout_s: float) -> None:
        """Nothing to close."""


Load = Callable[..., flow.DataFlowKernel]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Load a Config of two blocks of two workers; ``alone``: only the first of them."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "flow_test_helper.py").write_text("def inc(number):\n    return number + 1\n")
    script = tmp_path / "node.sh"
    script.write_text(NODE.format(directory=tmp_path, slow=""))
    script.chmod(0o755)
    made: list[flow.DataFlowKernel] = []

    def loaded(blocks: int = 2, max_blocks: int = 2, **options: object) -> flow.DataFlowKernel:
        executor = HighThroughputExecutor(
            "nodes",
            provider=LocalProvider(init_blocks=blocks, max_blocks=max_blocks, min_blocks=0),
            max_workers=2,
            launch_cmd=f"{script} {{python}} -P -m {{module}} {{debug}} {{options}}",
        )
        config = Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), **options)  # type: ignore[arg-type]
        made.append(flow.load(config))
        deadline = time.monotonic() + 60
        while executor.load().slots < 2 * blocks:
            assert time.monotonic() < deadline, "the managers do not come"
            time.sleep(0.05)
        return made[-1]

    yield loaded
    for kernel in made:
        kernel.cleanup()
    flow.clear()


def log_of(kernel: flow.DataFlowKernel) -> str:
    return (kernel.run_dir / "flow.log").read_text()


def held(kernel: flow.DataFlowKernel) -> list[str]:
    path = kernel.run_dir.parent / NAME
    return [one["node"] for one in json.loads(path.read_text())["nodes"]] if path.exists() else []


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.timeout(180)
def test_a_module_that_one_node_lacks_costs_no_task(load: Load) -> None:
    kernel = load(retries=0)
    results = [future.result(120) for future in [needs(number) for number in range(200)]]
    assert results == [("good", number + 1) for number in range(200)]
    text = log_of(kernel)
    (warning,) = [line for line in text.splitlines() if "gets no more tasks" in line]
    assert "WARNING" in warning
    assert "node bad gets no more tasks of nodes" in warning
    assert "No module named 'flow_test_helper'" in warning
    assert "flow nodes free bad" in warning


@pytest.mark.timeout(180)
def test_a_node_on_which_different_apps_fail_is_held_and_remembered_and_can_be_freed(load: Load) -> None:
    kernel = load(retries=3)
    apps = [fails_there, fails_too]
    results = [future.result(120) for future in [apps[number % 2](number) for number in range(100)]]
    assert set(results) == {"good"}
    until(lambda: held(kernel) == ["bad"], "it is remembered")
    command = [str(Path(sys.executable).with_name("flow")), "nodes"]
    directory = ["--run-dir", str(kernel.run_dir.parent)]
    told = subprocess.run([*command, *directory], capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.search(r"bad\s.*nodes", told)
    subprocess.run([*command, "free", "bad", *directory], capture_output=True, text=True, timeout=60, check=True)
    until(lambda: "node bad gets tasks of nodes again: it was freed by hand" in log_of(kernel), "the run hears of it")


@pytest.mark.timeout(180)
def test_what_an_app_does_everywhere_holds_no_node(load: Load) -> None:
    kernel = load(retries=1)
    futures = [is_wrong(number) for number in range(100)]
    assert all(isinstance(future.exception(120), ValueError) for future in futures)
    assert not held(kernel)
    assert "gets no more tasks" not in log_of(kernel)


@pytest.mark.timeout(180)
def test_the_only_node_is_never_held_and_tasks_fail_with_the_true_error(load: Load, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    kernel = load(blocks=1, max_blocks=1, retries=2)
    errors = [future.exception(60) for future in [needs(number) for number in range(40)]]
    assert {type(error) for error in errors} == {ModuleNotFoundError}
    assert errors[0] is not None
    assert "node bad" in " ".join([str(errors[0]), *getattr(errors[0], "__notes__", ())])
    assert not held(kernel)


@pytest.mark.timeout(180)
def test_a_node_held_in_an_earlier_run_is_taken_where_there_is_no_other(load: Load, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "runinfo").mkdir()
    entry = {"node": "bad", "executor": "nodes", "why": "it failed", "since": time.time(), "until": time.time() + 999}
    (tmp_path / "runinfo" / NAME).write_text(json.dumps({"version": 1, "nodes": [entry]}))
    sink = Holds()
    kernel = load(blocks=1, max_blocks=1, sinks=[sink])
    future = is_wrong(1)
    until(lambda: "node bad is held and gets no more tasks: it failed" in str(future.why()), "it says why it waits")
    assert isinstance(future.exception(60), ValueError)
    assert "in an earlier run it failed" in log_of(kernel)
    assert "node bad gets tasks of nodes again: no other node is there" in log_of(kernel)
    until(lambda: sink.told == [("nodes", "bad", "it failed"), ("nodes", "bad", "")], "sinks are told of both")


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_a_node_that_is_ten_times_slower_is_held(load: Load) -> None:
    kernel = load()
    results = [future.result(120) for future in [lasts() for _ in range(400)]]
    assert results.count("bad") < 40
    assert held(kernel) == ["bad"]
    assert "or more, while other nodes take" in log_of(kernel)
