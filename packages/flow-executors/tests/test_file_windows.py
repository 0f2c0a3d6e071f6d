"""A sender that waits for room hears what was taken, whatever comes of other transfers meanwhile."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flow_core.errors import StagingError
from flow_core.interfaces.call import Call, FileProgress, TryKey
from flow_core.remote.script_files import FilesByConnection, ScriptFile
from flow_executors.client.file_service import FileService
from flow_executors.client.last_words import LastWords
from flow_executors.common.file_pieces import PieceQueue, bodies, open_plain
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.wire.files import (
    LEAST_WINDOW,
    MOST_WINDOW,
    Ending,
    Entry,
    FileStep,
    SendWindow,
    TransferDirection,
    pack_ask,
    pack_ending,
    pack_file,
    pack_list,
    unpack_file,
    unpack_progress,
)
from flow_executors.wire.kinds import Buffer
from flow_executors.worker.script_files import NodeFiles

SIZE = 2 << 20
MANAGER = 1

pytestmark = pytest.mark.timeout(60)


class Sender:
    """One side of a transfer: a list, and the content of one file, as far as the window allows."""

    def __init__(self, transfer: int, path: Path) -> None:
        self.transfer = transfer
        self.window = SendWindow(MOST_WINDOW)
        listed = pack_list([Entry(0, "", "f", SIZE, 0o644, f"version of {transfer}")])
        content = bodies([(0, SIZE, 0, lambda: open_plain(str(path), "file"), "file")])
        self._pieces = PieceQueue(iter([listed]), content)

    def pieces(self, most: int = MOST_WINDOW) -> list[bytes]:
        """Return messages that there is room for, and so many at most."""
        found: list[bytes] = []
        while len(found) < most and (room := self.window.next_room()):
            piece = self._pieces.take(room)
            self.window.add(len(piece), 0.0)
            found.append(pack_file(FileStep.DATA, MANAGER, self.transfer, piece))
        return found

    def told(self, total: int) -> None:
        """Take the word of the other side, on a way that is too slow for more than the least window."""
        self.window.take(total, MOST_WINDOW, 1000.0)
        assert self.window.limit == LEAST_WINDOW


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(bytes(SIZE))
    return path


class Script:
    """A service of files; its thread can be held where it tells of a transfer."""

    def __init__(self, folder: Path) -> None:
        words = LastWords(lambda number: folder / f"logs-{number}")
        logger = logging.getLogger("test")
        self.service = FileService(self._send, "x", logger, 1 << 30, lambda _: None, self, words)
        self.told: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self.free = threading.Event()
        self.free.set()
        self.on_told: dict[int, Buffer] = {}
        """By transfer what comes while the service tells of it, once."""
        for key in (1, 2):
            step = FilesByConnection(str(folder), (), (ScriptFile("out", str(folder / f"out-{key}")),))
            self.service.declare(key, Call(print, steps=(step,)))
            self.service.take(pack_ask(MANAGER, key, key, TransferDirection.OUT))
            assert self.heard() == (key, 0)

    def _send(self, message: Buffer) -> bool:
        found = unpack_file(message)
        if found.step == FileStep.PROGRESS:
            self.told.put((found.transfer, unpack_progress(found.body)[0]))
            self.free.wait(20)
            more = self.on_told.pop(found.transfer, None)
            if more is not None:
                self.service.take(more)
        return True

    def moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Nothing here is reported."""

    def heard(self) -> tuple[int, int]:
        return self.told.get(timeout=10)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path)
    yield made
    made.free.set()
    made.service.close()


def test_a_manager_that_waits_for_room_hears_of_it_while_another_file_comes(script: Script, content: Path) -> None:
    one, two = Sender(1, content), Sender(2, content)
    first, *others = one.pieces()
    script.free.clear()
    script.service.take(first)
    transfer, taken = script.heard()
    assert transfer == 1
    one.told(taken)
    assert one.pieces() == []  # too little room is left: it waits for more
    for message in (*two.pieces(1), *others):
        script.service.take(message)
    script.on_told[2] = two.pieces(1)[0]
    script.free.set()
    while taken < one.window.sent:
        transfer, total = script.heard()
        if transfer == 1:
            one.told(taken := total)
    assert one.pieces()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FileAgent]:
    made = FileAgent(NodeDirectory(str(tmp_path / "node")))
    made.apart = True
    made.registered(MANAGER)
    yield made
    made.close()
    made._listener.close()  # the end of a manager's process does


def heard(agent: FileAgent, step: FileStep, transfer: int = 0) -> tuple[int, Buffer]:
    """Return transfer and body of the next message of a step, of one transfer or of any."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for message in agent.outgoing():
            found = unpack_file(message)
            if found.step == step and transfer in (0, found.transfer):
                return found.transfer, bytes(found.body)
        time.sleep(0.005)
    raise AssertionError(f"no {step!r} of {transfer or 'any'}")


def bring(agent: FileAgent, key: int) -> None:
    files = NodeFiles(agent.name, key, "node7").begin()
    assert files is not None
    with pytest.raises(StagingError, match="enough"):
        files.bring(["in"], [])
    files.close()


def test_a_script_that_waits_for_room_hears_of_it_while_another_file_comes(agent: FileAgent, content: Path) -> None:
    senders, tasks = [], [threading.Thread(target=bring, args=(agent, key)) for key in (1, 2)]
    for task in tasks:
        task.start()
        senders.append(Sender(heard(agent, FileStep.ASK)[0], content))
    one, two = senders
    (listed,) = one.pieces(1)
    agent.take(listed)
    _, told = heard(agent, FileStep.PROGRESS, one.transfer)
    pieces = one.pieces()  # sent before the script has read that
    one.told(unpack_progress(memoryview(told))[0])
    assert one.pieces() == []  # too little room is left: it waits for more
    agent._messages.extend([*pieces, *two.pieces(1)])  # all at once: the other file comes before the thread looks
    os.eventfd_write(agent._wake_fd, 1)
    taken = 0
    while taken < one.window.sent:
        taken, _ = unpack_progress(memoryview(heard(agent, FileStep.PROGRESS, one.transfer)[1]))
        one.told(taken)
    assert one.pieces()
    for sender in senders:
        agent.take(pack_file(FileStep.END, MANAGER, sender.transfer, pack_ending(Ending("enough"))))
    for task in tasks:
        task.join(20)
