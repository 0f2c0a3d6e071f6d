"""Managers come up on nodes that have nothing of the script's machine: their Python is found, and Flow is brought."""

from __future__ import annotations

import base64

import pytest
from machines import Machines

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

TELL = """
@python_app
def flow_of_node():
    import os
    import subprocess
    import sys

    import flow_executors

    child = subprocess.run(["python3", "-c", "import flow_executors"], capture_output=True, text=True)
    return os.uname().nodename, sys.executable, flow_executors.__file__, child.returncode


def bare(*hosts, **others):
    return config(*hosts, launch_cmd=None, **{"provider": {"worker_init": ""}, **others})


def log():
    return open("runinfo/000/flow.log").read()


"""


@pytest.mark.parametrize("kind", ["htex", "llex"])
def test_a_host_with_python_alone_gets_flow_and_its_tasks_run(machines: Machines, kind: str) -> None:
    machines.start(1, 2)
    text = f"""{TELL}
with flow.load(bare("node1", "node2", kind={kind!r})):
    tell(nodes=everywhere(2))
    tell(found=flow_of_node().result(timeout=50))
"""
    nodes, found = machines.run(text)
    assert nodes == {"nodes": ["node1", "node2"]}
    _, python, path, child = found["found"]  # type: ignore[misc]  # four things
    assert python == "/usr/bin/python3"
    assert path.startswith("/home/alice/.cache/flow/runtime/")
    assert child != 0, "programs of tasks find what is Flow's"
    # what is there is used again: nothing is written a second time
    before = {line for line in machines.written(1) if "/runtime/" in line}
    assert machines.run(text)[0] == nodes
    assert {line for line in machines.written(1) if "/runtime/" in line} == before


def test_what_no_channel_brings_is_fetched_by_the_node(machines: Machines) -> None:
    machines.start(1)
    said = machines.run(
        f"""{TELL}
from dataclasses import replace


class WithoutFiles(AdHocProvider):
    def submit(self, command, tasks_per_node, job_name="flow.auto", *, extras):
        return super().submit(command, tasks_per_node, job_name, extras=replace(extras, files=()))


made = HighThroughputExecutor(provider=WithoutFiles(channels("node1")), max_workers=1)
with flow.load(Config(executors=[made], strategy="none")):
    tell(found=flow_of_node().result(timeout=50))
"""
    )
    assert "/.cache/flow/runtime/" in said[0]["found"][2]  # type: ignore[index]


def test_an_environment_of_the_node_is_preferred_to_what_could_be_brought(machines: Machines) -> None:
    machines.start(1)
    said = machines.run(
        f"""{TELL}
with flow.load(bare("node1", provider=FLOWENV)):
    tell(found=flow_of_node().result(timeout=50))
flow.clear()
with flow.load(bare("node1", python="/opt/flowenv/bin/python")):
    tell(found=flow_of_node().result(timeout=50))
flow.clear()
with flow.load(bare("node1", provider=FLOWENV, bootstrap=True)):
    tell(found=flow_of_node().result(timeout=50))
"""
    )
    paths = [one["found"][2] for one in said]  # type: ignore[index]
    assert [path.startswith("/opt/flowenv/") for path in paths] == [True, True, False]


def test_a_node_with_other_code_of_the_same_release_gets_the_scripts(machines: Machines) -> None:
    machines.start(1)
    changed = "/opt/flowenv/lib/python3*/site-packages/flow_executors/__init__.py"
    machines.on(1, f"for one in {changed}; do echo '# changed' >>$one; done")
    said = machines.run(
        f"""{TELL}
for bootstrap in ("auto", False):
    with flow.load(bare("node1", provider=FLOWENV, bootstrap=bootstrap)):
        tell(found=flow_of_node().result(timeout=50)[2], log=open(f"{{flow.dfk().run_dir}}/flow.log").read())
    flow.clear()
"""
    )
    sent, kept = said
    assert "/.cache/flow/runtime/" in str(sent["found"])
    assert "is not the script's: the script's was sent there" in str(sent["log"])
    assert str(kept["found"]).startswith("/opt/flowenv/")
    assert "node node1 has another Flow than the script" in str(kept["log"])


def test_a_launch_line_of_older_configurations_starts_the_manager(machines: Machines) -> None:
    machines.start(1)
    line = "process_worker_pool.py {debug} -c {cores_per_worker} --task_url={task_url} --result_url={result_url}"
    said = machines.run(
        f"""{TELL}
with flow.load(config("node1", launch_cmd={line!r}, provider={{"worker_init": ""}})):
    tell(node=where().result(timeout=50))
"""
    )
    assert said == [{"node": "node1"}]


def test_a_node_without_flow_is_named_with_what_was_tried_and_what_helps(machines: Machines) -> None:
    machines.start(1)
    said = machines.run(
        f"""{TELL}
with flow.load(bare("node1", bootstrap=False)):
    tell(error=str(where().exception(timeout=50)))
flow.clear()
with flow.load(bare("node1", python="/opt/none/bin/python")):
    tell(error=str(where().exception(timeout=50)))
"""
    )
    first, second = (str(one["error"]) for one in said)
    assert "node node1" in first
    assert "Python 3.11 without Flow" in first
    assert "worker_init" in first
    assert "/opt/none/bin/python: not there" in second


def test_other_releases_on_a_node_are_one_warning_a_kind(machines: Machines) -> None:
    machines.start(1)
    site = "/opt/flowenv/lib/python3.11/site-packages"
    machines.on(1, f"""sed -i 's/__version__ = .*/__version__ = "9.9.9"/' {site}/flow_executors/__init__.py""")
    machines.on(1, f"""sed -i 's/__version__ = .*/__version__ = "7.7.7"/' {site}/cloudpickle/__init__.py""")
    said = machines.run(
        f"""{TELL}
with flow.load(bare("node1", provider=FLOWENV, bootstrap=False)):
    where().result(timeout=50)
    tell(log=[line for line in log().splitlines() if "WARNING" in line])
"""
    )
    warnings = [line for line in said[0]["log"] if "node node1 has" in line]  # type: ignore[attr-defined]
    for kind in ("flow-executors 9.9.9", "cloudpickle 7.7.7"):
        assert sum(kind in line for line in warnings) == 1, warnings


def test_a_packed_environment_goes_to_the_node(machines: Machines) -> None:
    machines.start(1)
    # as venv-pack makes it: a tree whose python is a link to that of the system
    packed = machines.on(1, "tar -C /opt/flowenv -czf - . | base64 -w0; rm -rf /opt/flowenv")
    (machines.project / "env.tar.gz").write_bytes(base64.b64decode(packed))
    said = machines.run(
        f"""{TELL}
with flow.load(bare("node1", environment="env.tar.gz")):
    tell(found=flow_of_node().result(timeout=50))
"""
    )
    _, python, path, _ = said[0]["found"]  # type: ignore[misc]  # four things
    assert python.startswith("/home/alice/.cache/flow/environment/")
    assert path.startswith("/home/alice/.cache/flow/environment/")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["SM_RO_HOME", "SM_NO_TMP", "SM_TMP_NOEXEC", "SM_NOSHM"])
def test_flow_comes_to_nodes_on_which_something_cannot_be_written(machines: Machines, fault: str) -> None:
    machines.start(1, **{fault: "1"})
    channel = {"script_dir": "/tmp/flow_scripts"} if fault == "SM_RO_HOME" else {}
    said = machines.run(
        f"""{TELL}
with flow.load(bare("node1", channel={channel!r})):
    tell(node=where().result(timeout=50))
"""
    )
    assert said == [{"node": "node1"}]


@pytest.mark.parametrize("init", ["", "source /opt/flowenv/bin/activate"])
def test_the_packaged_configuration_of_hosts_needs_names_and_a_login_only(machines: Machines, init: str) -> None:
    machines.start(1, 2)
    said = machines.run(
        f"""{TELL}
import importlib.util

text = open(importlib.util.find_spec("flow.configs.ad_hoc").origin).read()
for old, new in {{
    "YOUR_HOST_1": "node1",
    "YOUR_HOST_2": "node2",
    'USERNAME = "YOUR_USERNAME"': 'USERNAME = "alice"',
    'WORKER_INIT = ""': {f"WORKER_INIT = {init!r}"!r},
}}.items():
    assert old in text
    text = text.replace(old, new)
exec(text)
with flow.load(config):
    tell(nodes=everywhere(2))
"""
    )
    assert said == [{"nodes": ["node1", "node2"]}]
