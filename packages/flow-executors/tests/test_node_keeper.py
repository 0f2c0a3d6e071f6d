"""Held nodes are told, remembered, and free again when somebody says so."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.own_files import NotOwnFile
from flow_executors.client.node_health_core import STREAK
from flow_executors.client.node_keeper import NodeKeeper
from flow_executors.client.node_memory import KEPT_S, NAME, HeldNode, NodeMemory

APP = b"a" * 16


class Told:
    """What an interchange and a scaler were told."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, ...]] = []
        self.changes = 0

    def change(self) -> None:
        self.changes += 1


Make = Callable[[], tuple[NodeKeeper, Told]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[NodeKeeper] = []

    def keeper() -> tuple[NodeKeeper, Told]:
        told = Told()
        one = NodeKeeper("htex", NodeMemory(tmp_path), logging.getLogger("flow.test"), told.nodes.append)
        one.on_change = told.change
        made.append(one)
        one.start()
        return one, told

    yield keeper
    for one in made:
        one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "flow-htex-nodes"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def spoil(keeper: NodeKeeper) -> None:
    for node in ("good", "bad"):
        keeper.joined(node)
    keeper.failed("bad", APP)
    for _ in range(9):
        keeper.succeeded("good", APP, 0, 1)
    keeper.said("bad", "OSError: No space left on device")
    for _ in range(2 * STREAK):
        keeper.failed("bad", APP)


def test_a_bad_node_is_told_once_and_remembered(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper, told = make()
    spoil(keeper)
    assert (keeper.held, told.nodes, told.changes) == (("bad",), [("bad",)], 1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for part in ("node bad", "htex", "No space left", "flow nodes free bad"):
        assert part in record.getMessage()
    until(lambda: bool(NodeMemory(tmp_path).entries()))
    (entry,) = NodeMemory(tmp_path).entries()
    assert (entry.node, entry.executor) == ("bad", "htex")
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    later, _ = make()
    assert later.held == ("bad",)
    assert "in an earlier run" in caplog.text


def test_who_takes_it_out_of_the_memory_frees_it_in_all_runs(make: Make, tmp_path: Path) -> None:
    keeper, told = make()
    spoil(keeper)
    until(lambda: bool(NodeMemory(tmp_path).entries()))
    NodeMemory(tmp_path).remove(["bad"])
    until(lambda: keeper.held == ())
    assert told.nodes[-1] == ()


def test_the_program_frees_it_in_the_memory_too(make: Make, tmp_path: Path) -> None:
    keeper, told = make()
    spoil(keeper)
    until(lambda: bool(NodeMemory(tmp_path).entries()))
    assert keeper.free("bad")
    assert not keeper.free("bad")
    assert (NodeMemory(tmp_path).entries(), told.nodes[-1]) == ([], ())


def test_what_others_remember_at_the_same_time_does_not_free_it(make: Make, tmp_path: Path) -> None:
    keeper, _ = make()
    spoil(keeper)
    for number in range(20):
        NodeMemory(tmp_path).add(HeldNode(f"n{number}", "other", "why", 0.0, time.time() + 99))
    until(lambda: len(NodeMemory(tmp_path).entries()) == 21)
    assert keeper.held == ("bad",)


def test_a_memory_that_cannot_be_written_costs_the_memory_alone(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, _ = make()
    (tmp_path / NAME).mkdir()
    spoil(keeper)
    until(lambda: "are not remembered" in caplog.text)
    assert keeper.held == ("bad",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_memory_of_another_user_holds_nothing(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    NodeMemory(tmp_path).add(HeldNode("good", "htex", "a lie", 0.0, time.time() + 99))
    os.chown(tmp_path / NAME, 12345, 12345)
    with pytest.raises(NotOwnFile):
        NodeMemory(tmp_path).entries()
    keeper, _ = make()
    assert keeper.held == ()
    assert "not known" in caplog.text


def test_what_is_remembered_expires(tmp_path: Path) -> None:
    memory, now = NodeMemory(tmp_path), time.time()
    memory.add(HeldNode("a", "htex", "why", now, now + KEPT_S))
    assert [one.node for one in memory.entries(now + KEPT_S - 1)] == ["a"]
    assert memory.entries(now + KEPT_S + 1) == []


def test_nodes_are_of_executors(tmp_path: Path) -> None:
    memory, until_s = NodeMemory(tmp_path), time.time() + 99
    for label in ("one", "two"):
        memory.add(HeldNode("a", label, "why", 0.0, until_s))
    assert [one.executor for one in memory.remove(["a"], "one")] == ["one"]
    assert [one.executor for one in memory.entries()] == ["two"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["nodes", "node", "executor", "why", "since", "until"]), inner, max_size=6)
    ),
)


@given(JSON)
def test_a_memory_with_anything_in_it_is_read(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.mktemp("memory")
    (path / NAME).write_text(json.dumps({"nodes": content} if isinstance(content, list) else content))
    for one in NodeMemory(path).entries():
        assert isinstance(one.node, str)
