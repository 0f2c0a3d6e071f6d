"""``flow nodes``: what is held is listed and freed."""

from __future__ import annotations

import time
from pathlib import Path

from click.testing import CliRunner

from flow.cli.main import commands
from flow_executors.client.node_memory import HeldNode, NodeMemory


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["nodes", *map(str, arguments)])
    return done.exit_code, done.output


def test_held_nodes_are_listed_and_freed(tmp_path: Path) -> None:
    where = ("--run-dir", tmp_path)
    assert run(*where) == (0, f"no node is held in {tmp_path}\n")
    now = time.time()
    for node in ("node1", "node2\x1b[2J"):
        NodeMemory(tmp_path).add(HeldNode(node, "htex", "its last 10 tasks failed", now, now + 99))
    code, text = run(*where)
    assert code == 0
    assert "node1" in text
    assert "its last 10 tasks failed" in text
    assert "\x1b" not in text
    assert run("free", "node1", *where) == (0, "node node1 gets tasks of htex again\n")
    code, text = run("free", "node1", *where)
    assert (code, "not held" in text) == (1, True)
    assert run("free", "--all", "--executor", "other", *where) == (0, "")
    assert len(NodeMemory(tmp_path).entries()) == 1
    assert run("free", "--all", *where)[0] == 0
    assert NodeMemory(tmp_path).entries() == []


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    assert "say --all" in run("free", "--run-dir", tmp_path)[1]
    code, text = run("free", "node1", "--run-dir", tmp_path / "none")
    assert (code, "--run-dir" in text) == (1, True)
