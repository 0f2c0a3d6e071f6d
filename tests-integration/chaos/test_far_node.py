"""The node is another host: reached by ssh, with a network of its own, and without the directory of the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from rows import rows
from trial import Run, Start

sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))

from provider_services import SERVICES, service  # needs the line above

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(os.geteuid() != 0, reason="networks of their own need root")]

CUT_S = 20
TASKS = 80


class FarNode:
    """The host, and what a run needs to use it."""

    def __init__(self, variables: dict[str, str], directory: Path) -> None:
        self._directory = directory
        self.setup: dict[str, object] = {
            "tasks": TASKS,
            "nap_s": 0.25,
            "patience_s": 200,
            "ssh": {
                "hostname": variables["HOSTS_TEST_FIRST"],
                "username": variables["HOSTS_TEST_USER"],
                "key_filename": variables["HOSTS_TEST_KEY"],
                "known_hosts": variables["HOSTS_TEST_KNOWN_HOSTS"],
                "script_dir": str(directory / "scripts"),
            },
            "provider": {"init_blocks": 1, "max_blocks": 1},
        }
        self.executor = {"address": variables["HOSTS_TEST_HERE"]}

    def way(self, verb: str) -> None:
        """``cut`` or ``heal`` the network."""
        environment = {**os.environ, "HOSTS_TEST_DIR": str(self._directory / "hosts")}
        subprocess.run(["bash", str(SERVICES / "hosts.sh"), verb, "1"], check=True, timeout=30, env=environment)


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[FarNode]:
    pytest.importorskip("paramiko")
    directory = tmp_path_factory.mktemp("far")
    with service(
        "hosts", "sshd", {"HOSTS_TEST_DIR": str(directory / "hosts"), "HOSTS_TEST_HIDE": str(tmp_path)}
    ) as given:
        yield FarNode(given, directory)


def begun_there(start: Start, node: FarNode, kind: str, **options: object) -> Run:
    """Start a run whose node has nothing of it."""
    executor = {**node.executor, **options}
    run = start(kind, setup={**node.setup, "executor": executor})
    for pid in run.pids("manager"):
        assert run.log
        assert not list(Path(f"/proc/{pid}/root{run.directory}").glob("runinfo/*/flow.log"))
    return run


@pytest.mark.parametrize(
    ("kind", "role"), rows([("htex", "manager"), ("htex", "interchange"), ("llex", "manager")], chaos=[])
)
def test_a_process_that_is_killed_is_replaced(start: Start, node: FarNode, kind: str, role: str) -> None:
    run = begun_there(start, node, kind)
    for pid in run.pids(role):
        os.kill(pid, signal.SIGKILL)
    run.check()


@pytest.mark.parametrize(("kind", "threshold_s"), rows(product(["htex", "llex"], [4, 120]), chaos=[]))
def test_a_way_that_is_cut_for_a_while_costs_no_task(start: Start, node: FarNode, kind: str, threshold_s: int) -> None:
    run = begun_there(start, node, kind, heartbeat_period=threshold_s / 4, heartbeat_threshold=threshold_s)
    node.way("cut")
    try:
        time.sleep(CUT_S)
    finally:
        node.way("heal")
    run.check()
