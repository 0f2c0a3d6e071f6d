"""Hosts that are named and nothing more; hosts that cannot be used; what is left on them."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from machines import Machines, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


def packaged(name: str, **filled_in: object) -> str:
    """Return the text of a packaged configuration with the values that users fill in, and no other change."""
    found = find_spec(f"flow.configs.{name}")
    assert found is not None
    assert found.origin is not None
    lines = Path(found.origin).read_text().splitlines()
    known = {line.partition(" = ")[0] for line in lines}
    assert filled_in.keys() <= known
    return "\n".join(
        f"{key} = {filled_in[key]!r}" if (key := line.partition(" = ")[0]) in filled_in else line for line in lines
    )


def test_the_packaged_configuration_runs_on_bare_hosts(machines: Machines) -> None:
    machines.start(1, 2, SM_BARE="1")
    machines.write("my_hosts.py", packaged("ad_hoc", HOSTS=["node1", "node2"], USERNAME="alice"))
    said = machines.run(
        "from my_hosts import config\nwith flow.load(config):\n    tell(nodes=everywhere(2))\n", timeout_s=90
    )
    assert said == [{"nodes": ["node1", "node2"]}]


def test_a_host_of_several_that_is_not_reached_is_named_in_one_warning(machines: Machines) -> None:
    machines.start(1, 2)
    machines.do("kill", 2)
    said = machines.run(
        """
with flow.load(config("node1", "node2", channel={"connect_timeout": 3})):
    tell(nodes=everywhere(1))
    time.sleep(5)
tell(log=open("runinfo/000/flow.log").read())
"""
    )
    assert said[0] == {"nodes": ["node1"]}
    warnings = [line for line in str(said[1]["log"]).splitlines() if "node2" in line and "takes no jobs" in line]
    assert len(warnings) == 1
    assert "[WARNING]" in warnings[0]
    assert "node2 cannot be reached" in warnings[0]


def test_a_home_that_is_read_only_is_called_so_and_another_directory_helps(machines: Machines) -> None:
    machines.start(1, SM_RO_HOME="1")
    said = machines.run(
        """
options = {"retries": 0}
with flow.load(config("node1", options=options)):
    tell(error=str(where().exception(timeout=50)))
elsewhere = {"script_dir": "/tmp/flow-scripts"}
with flow.load(config("node1", options=options, channel=elsewhere)):
    tell(where=where().result(timeout=50))
"""
    )
    assert "Read-only file system" in str(said[0]["error"])
    assert "script_dir=" in str(said[0]["error"])
    assert said[1] == {"where": "node1"}


SOME = """
with flow.load(config("node1")):
    tell(where=where().result(timeout=50))
"""


def scripts(machines: Machines) -> list[str]:
    """Return what is in the directory of job scripts on node1, but for what is kept for the next run."""
    return [path for path in machines.written(1) if "/flow_scripts/" in path and "/flow_scripts/files/" not in path]


def test_nothing_of_a_run_is_left_on_a_node(machines: Machines) -> None:
    machines.start(1)
    machines.run(SOME)
    assert scripts(machines) == []
    assert machines.processes(1) == []


def test_nothing_of_a_killed_script_is_left_on_a_node(machines: Machines) -> None:
    machines.start(1)
    script = machines.begin(SOME + "    nap(300).result()\n")
    script.told()
    script.kill()
    wait_until(lambda: not machines.processes(1), "managers do not end")
    wait_until(lambda: not scripts(machines), "files are not removed")


def test_nothing_of_a_script_that_is_terminated_is_left_on_a_node(machines: Machines) -> None:
    machines.start(1)
    script = machines.begin(SOME + "    nap(300).result()\n")
    script.told()
    os.kill(script.pid, signal.SIGTERM)
    wait_until(lambda: not machines.processes(1), "managers do not end")
    wait_until(lambda: not scripts(machines), "files are not removed")


def test_a_node_that_died_holds_the_end_for_seconds_and_its_job_is_told(machines: Machines) -> None:
    machines.start(1, 2)
    script = machines.begin(
        """
from flow_core.errors import CleanupIncomplete
with_two = flow.load(config("node1", "node2", channel={"connect_timeout": 3}))
tell(nodes=everywhere(2))
while not os.path.exists("go"):
    time.sleep(0.1)
began = time.monotonic()
try:
    with_two.cleanup()
except CleanupIncomplete as error:
    tell(steps=error.steps, took=time.monotonic() - began)
"""
    )
    script.told()
    machines.do("kill", 2)
    machines.write("go", "")
    said = script.ended()[-1]
    assert "which may still run" in str(said["steps"])
    assert float(str(said["took"])) < 15


def test_what_failures_left_is_removed_after_a_week(machines: Machines) -> None:
    machines.start(1)
    machines.run(
        """
with flow.load(config("node1", options={"retries": 0}, provider={"worker_init": "echo broken >&2; exit 3"})):
    tell(error=str(where().exception(timeout=50)))
"""
    )
    kept = scripts(machines)
    assert any(path.endswith(".err") for path in kept)
    machines.run(SOME)
    assert set(scripts(machines)) == set(kept)
    machines.on(1, "touch -d '8 days ago' /home/alice/flow_scripts/*")
    machines.run(SOME)
    assert scripts(machines) == []
