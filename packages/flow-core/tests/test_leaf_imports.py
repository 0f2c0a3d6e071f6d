"""What a node loads: frozen, since thousands of nodes read it from one file system at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAF = {
    "flow_core",
    "flow_core.errors",
    "flow_core.interfaces",
    "flow_core.interfaces.call",
    "flow_core.interfaces.container",
    "flow_core.lazy",
    "flow_core.loss",
    "flow_core.remote",
    "flow_core.remote.run",
}
TRANSPORT = LEAF | {
    "flow_core.guard",
    "flow_core.interfaces.outcome",
    "flow_core.remote.errors",
    "flow_core.remote.refs",
}
STEPS = LEAF | {
    "flow_core.folders",
    "flow_core.remote.bash",
    "flow_core.remote.block_end",
    "flow_core.remote.blocked",
    "flow_core.remote.links",
    "flow_core.remote.outputs",
    "flow_core.remote.processes",
    "flow_core.remote.usage",
    "flow_core.remote.walltime",
    "flow_core.starting",
}
DECORATORS = LEAF | {
    "flow_core.active",
    "flow_core.apps",
    "flow_core.apps.app",
    "flow_core.apps.decorators",
    "flow_core.apps.definition",
    "flow_core.apps.fitting",
    "flow_core.apps.parameters",
    "flow_core.apps.special",
    "flow_core.file_names",
    "flow_core.folders",
    "flow_core.files",
    "flow_core.interfaces.memoizer",
    "flow_core.option_records",
    "flow_core.without_effect",
    "flow_core.option_names",
}
HEAVY = {"asyncio", "concurrent", "hashlib", "http", "json", "logging", "multiprocessing", "socket", "ssl", "urllib"}


def loaded(code: str, **environment: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after the code and had not before."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env={**os.environ, **environment},
    )
    return set(done.stdout.split())


def ours(modules: set[str]) -> set[str]:
    """Return what is not of the standard library."""
    return {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import flow_core.remote.run", LEAF),
        ("import flow_core.remote.run, flow_core.remote.errors, flow_core.remote.refs", TRANSPORT),
        ("import flow_core.remote.run, flow_core.remote.bash, flow_core.remote.outputs", STEPS),
    ],
)
def test_the_leaf_loads_itself_and_little_of_the_standard_library(code: str, expected: set[str]) -> None:
    modules = loaded(code)
    assert ours(modules) <= expected
    assert {name.partition(".")[0] for name in modules}.isdisjoint(HEAVY)


def test_running_a_plain_task_loads_nothing_more() -> None:
    code = (
        "from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext\n"
        "from flow_core.remote.run import execute\n"
        "before = set(sys.modules)\n"
        "assert execute(divmod, (7, 2), {}, DEFAULT_SPEC, (), NodeContext()) == (3, 1)"
    )
    assert loaded(code) == set()


def test_an_importable_exception_travels_without_cloudpickle() -> None:
    code = "from flow_core.remote.errors import pack, unpack\nunpack(pack(ValueError(1)))"
    assert "cloudpickle" not in loaded(code)


def test_a_task_module_with_apps_loads_no_kernel(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "from flow_core import bash_app, python_app\n"
        "@python_app\ndef double(x):\n    return 2 * x\n"
        "@bash_app\ndef shout(text, stdout='out'):\n    return f'echo {text}'\n"
    )
    modules = loaded(
        "from flow_core.remote.refs import resolve\nassert resolve('my_tasks:double#1')(4) == 8",
        PYTHONPATH=str(tmp_path),
    )
    assert ours(modules) <= DECORATORS | {"flow_core.remote.refs", "my_tasks"}
    assert {name.partition(".")[0] for name in modules}.isdisjoint(HEAVY)
