"""What is loaded, and what must not be: counted in modules, not in seconds."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor

HEAVY = {"sqlalchemy", "alembic", "flask", "plotly", "networkx", "paramiko", "boto3", "requests", "typeguard", "rich"}


def modules_after(statement: str) -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter."""
    script = (
        "import json, sys\nbefore = set(sys.modules)\n"
        f"{statement}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    return set(json.loads(done.stdout))


def roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_import_flow_loads_itself_only():
    assert len(modules_after("import flow")) < 25


def test_a_script_of_apps_loads_the_core_only():
    loaded = modules_after("from flow import python_app, bash_app, join_app, File, Config")
    assert roots(loaded).isdisjoint(HEAVY | {"zmq", "psutil", "flow_executors", "flow_providers", "flow_monitor"})


def test_loading_threads_needs_no_zmq_and_no_database():
    loaded = modules_after("import flow\nfrom flow.configs.local_threads import config")
    assert roots(loaded).isdisjoint(HEAVY | {"zmq"})


def test_the_providers_load_no_client_of_a_cloud():
    loaded = modules_after("import flow_providers\nflow_providers.LocalProvider")
    assert roots(loaded).isdisjoint(HEAVY | {"kubernetes", "google", "azure", "openstack", "zmq"})


def test_every_public_name_can_be_loaded():
    for name in flow.__all__:
        assert getattr(flow, name) is not None


@pytest.mark.parametrize("name", ["executors", "providers", "channels", "launchers"])
def test_type_checkers_see_the_names_that_are_there(name: str):
    module = import_module(f"flow.{name}")
    tree = ast.parse(Path(module.__file__).read_text())
    seen = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen - {None} - {"_home"} == set(module.__all__) - {"__version__"}


def test_from_flow_import_star_brings_what_a_script_needs():
    loaded = "from flow import *\nassert python_app and load and Config and File and HighThroughputExecutor"
    assert "flow_core" in roots(modules_after(loaded))


def test_a_worker_loads_none_of_the_heavy_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    @python_app
    def loaded_in_worker():
        import sys

        return sorted(sys.modules)

    monkeypatch.chdir(tmp_path)
    with flow.load(Config(executors=[HighThroughputExecutor(max_workers=1)])):
        names = set(loaded_in_worker().result(timeout=50))
    assert roots(names).isdisjoint(HEAVY | {"zmq", "psutil", "click"})
    ours = {name for name in names if name.startswith("flow")}
    assert not {name for name in ours if name.split(".")[0] not in {"flow_core", "flow_executors"}}


def test_a_task_of_a_module_that_imports_flow_loads_the_leaf_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_apps.py").write_text(
        "from flow import python_app\n\n@python_app\ndef loaded():\n    import sys\n    return sorted(sys.modules)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import my_apps

    with flow.load(Config(executors=[HighThroughputExecutor(max_workers=1)])):
        names = set(my_apps.loaded().result(timeout=50))
    assert roots(names).isdisjoint(HEAVY | {"zmq", "psutil", "click"})
    assert not any(name.startswith(("flow_core.kernel", "flow_core.graph", "flow_monitor")) for name in names)
