"""Other users at the door by which a manager gives its workers files: they hold nobody up."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import pytest

from flow_executors.manager import file_agent
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.wire.transport import STRANGERS_A_TURN, is_own
from flow_executors.worker.script_files import NodeFiles


def test_strangers_without_end_are_refused_a_few_at_a_time_and_a_worker_gets_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = FileAgent(NodeDirectory(str(tmp_path)))
    strangers: list[socket.socket] = []
    try:
        monkeypatch.setattr(file_agent, "is_own", lambda connection: False)
        monkeypatch.setattr(file_agent, "PAUSE_S", 1000.0)
        for _ in range(50):
            strangers.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            strangers[-1].connect(f"\0{agent.name}")
        first = strangers[:STRANGERS_A_TURN]
        assert all(select.select([one], (), (), 20)[0] for one in first)
        assert not select.select(strangers[STRANGERS_A_TURN:], (), (), 0)[0]  # they wait until the pause is over
        monkeypatch.setattr(file_agent, "is_own", is_own)
        agent._accepts_at = 0.0  # the pause is over, as is told by the next message
        agent.registered(1)
        assert NodeFiles(agent.name, 1, "here").begin() is None
    finally:
        agent.close()
        for one in strangers:
            one.close()
