"""The network between script and node is cut, with the heartbeats that a user has who sets none (30 s, 120 s)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rows import rows
from trial import Start, begins

NETNS = Path(__file__).parents[1] / "services" / "netns.sh"
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
TASKS = 60
WITHIN_S, BEYOND_S = 45, 150
MANAGERS, WORKERS, PREFETCHED = 2, 2, 2
USUAL_HEARTBEATS = {"heartbeat_period": 30, "heartbeat_threshold": 120}


class Node:
    """A host with a network of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.script_address = self._do("start", "1").split()[0]

    def _do(self, verb: str, *words: str) -> str:
        command = ["bash", str(NETNS), verb, str(self._directory), *words]
        return subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout

    @property
    def launch_cmd(self) -> str:
        """How a manager is started on it."""
        return f"bash {NETNS} exec {self._directory} 1 {{python}} -m {{module}} {{debug}} {{options}}"

    def cut(self, seconds: float) -> None:
        """Cut the network off for a while."""
        self._do("cut", "1")
        try:
            time.sleep(seconds)
        finally:
            self._do("heal", "1")

    def close(self) -> None:
        """End what runs there."""
        self._do("stop")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    try:
        made = Node(tmp_path / "net")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    yield made
    made.close()


def setup(node: Node, ran: Path) -> dict[str, object]:
    return {
        "tasks": TASKS,
        "nap_s": 1.0,
        "patience_s": 400,
        "ran": str(ran),
        "executor": {"address": node.script_address, "launch_cmd": node.launch_cmd, **USUAL_HEARTBEATS},
    }


@pytest.mark.parametrize("kind", rows(["htex", "llex"], chaos=[]))
def test_a_network_away_for_less_than_the_threshold_costs_no_task_repeats_none_and_is_told(
    start: Start, node: Node, tmp_path: Path, kind: str
) -> None:
    run = start(kind, setup=setup(node, tmp_path / "ran"))
    node.cut(WITHIN_S)
    run.wait_log("network between them was away", 100)
    run.check()
    assert begins(tmp_path / "ran") == dict.fromkeys(range(TASKS), 1)


@pytest.mark.parametrize("kind", rows(["htex", "llex"], chaos=[]))
def test_a_network_away_for_longer_than_the_threshold_costs_a_block_and_no_task(
    start: Start, node: Node, tmp_path: Path, kind: str
) -> None:
    run = start(kind, setup=setup(node, tmp_path / "ran"))
    node.cut(BEYOND_S)
    run.check()
    ran = begins(tmp_path / "ran")
    assert set(ran) == set(range(TASKS))
    assert ran.total() <= TASKS + MANAGERS * WORKERS * PREFETCHED
    assert "silent for more than 120 s" in run.log
