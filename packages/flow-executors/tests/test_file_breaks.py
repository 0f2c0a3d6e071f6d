"""Files that move while the way breaks go on where they were, and arrive as they are."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flow_core.errors import StagingError
from flow_core.interfaces.call import Call, FileMoved, FileProgress, TryKey
from flow_core.interfaces.outcome import Loss, LossKind
from flow_core.remote.script_files import FilesByConnection, ScriptFile
from flow_executors.client.file_service import FileService
from flow_executors.client.last_words import LastWords
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.wire.files import (
    Entry,
    FileMessage,
    FileStep,
    body_digest,
    pack_file,
    pack_head,
    pack_list,
    unpack_file,
)
from flow_executors.wire.kinds import Buffer
from flow_executors.worker.script_files import NodeFiles

SIZE = 6 << 20
ENOUGH = 2 << 20  # bytes that have come when the way breaks
KEY = 7

pytestmark = pytest.mark.timeout(60)


class FileConnection:
    """An agent and a service, with a way between that can break once, after some bytes of files have come."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "script"
        self.script.mkdir()
        logger = logging.getLogger("test")
        self.words = LastWords(lambda number: folder / f"logs-{number}")
        self.service = FileService(self._down, "x", logger, 1 << 30, lambda _: None, self, self.words)
        self.told: list[FileMoved] = []
        self.agent = FileAgent(NodeDirectory(str(folder / "node")))
        self.agent.apart = True
        self.manager = 1
        self.agent.registered(1)
        self.carried = {1: 0, 2: 0}
        """Bytes of files by the number of the manager: of before and after the break."""
        self.breaks_at = SIZE * 10
        self.on_break: Callable[[], None] = lambda: None
        self._orders: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._pump = threading.Thread(target=self._carry, daemon=True)
        self._watch = threading.Thread(target=self._up, daemon=True)
        self._ended = False
        self._pump.start()
        self._watch.start()

    def _down(self, message: object) -> bool:
        assert isinstance(message, bytes)
        self._orders.put(("down", message))
        return True

    def _up(self) -> None:
        while not self._ended:
            for message in self.agent.outgoing():
                self._orders.put(("up", message))
            time.sleep(0.001)

    def _carry(self) -> None:
        while (order := self._orders.get()) is not None:
            direction, message = order
            found = unpack_file(message)
            if found.manager != self.manager:
                continue  # on the way when it broke
            if found.step == FileStep.DATA:
                self.carried[self.manager] += len(found.body)
            (self.agent if direction == "down" else self.service).take(message)
            if self.carried[1] >= self.breaks_at and self.manager == 1:
                self.manager = 2
                self.on_break()
                self.agent.registered(2)

    def moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Nothing here takes as long."""

    def moved(self, call: Call, files: Sequence[FileMoved]) -> None:
        assert call is self.call
        self.told += files

    def task(self, step: FilesByConnection) -> NodeFiles:
        """Return the files of a try that the script waits for."""
        self.call = Call(print, steps=(step,))
        self.service.declare(KEY, self.call)
        files = NodeFiles(self.agent.name, KEY, "node7").begin()
        assert files is not None
        return files

    def close(self) -> None:
        self._ended = True
        self._watch.join(10)
        self._orders.put(None)
        self._pump.join(10)
        self.agent.close()
        self.agent._listener.close()  # the end of a manager's process does
        self.service.close()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[FileConnection]:
    made = FileConnection(tmp_path)
    yield made
    made.close()


def settled(path: Path, content: bytes) -> Path:
    """Write a file that was not changed just now: what is younger has no sure version."""
    path.write_bytes(content)
    time.sleep(max(0.0, path.stat().st_ctime + 2.1 - time.time()))
    return path


def until(condition: Callable[[], object]) -> object:
    """Wait until something is there: the agent tells the task before the script."""
    end = time.monotonic() + 20
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def replace(path: Path, content: bytes) -> None:
    other = path.parent.parent / "other"
    other.write_bytes(content)
    other.replace(path)


def test_a_file_on_its_way_to_a_node_goes_on_after_a_break(way: FileConnection) -> None:
    content = os.urandom(SIZE)
    path = settled(way.script / "in", content)
    step = FilesByConnection(str(way.script), (ScriptFile("in", str(path)),), ())
    way.breaks_at = ENOUGH
    files = way.task(step)
    files.bring(["in"], [])
    assert (Path(files.root) / "in").read_bytes() == content
    files.close()
    assert until(lambda: way.told) == [FileMoved("in", "in", str(path), SIZE)]
    assert way.carried[1] >= ENOUGH
    assert way.carried[2] < SIZE - ENOUGH // 2


def test_a_file_that_changed_during_a_break_comes_whole(way: FileConnection) -> None:
    path = settled(way.script / "in", os.urandom(SIZE))
    changed = os.urandom(SIZE)
    step = FilesByConnection(str(way.script), (ScriptFile("in", str(path)),), ())
    way.breaks_at, way.on_break = ENOUGH, lambda: replace(path, changed)
    files = way.task(step)
    files.bring(["in"], [])
    assert (Path(files.root) / "in").read_bytes() == changed
    files.close()
    assert way.carried[2] >= SIZE


@pytest.mark.parametrize("fresh", [False, True], ids=["same interchange", "another interchange"])
def test_files_on_their_way_to_the_script_go_on_after_a_break(way: FileConnection, fresh: bool) -> None:
    contents = {"a": os.urandom(SIZE // 2), "b": os.urandom(1000), "c": os.urandom(SIZE // 2), "d": b""}
    outputs = tuple(ScriptFile(name, str(way.script / name)) for name in contents)
    files = way.task(FilesByConnection(str(way.script), (), outputs))
    for name, content in contents.items():
        (Path(files.root) / name).write_bytes(content)
    way.breaks_at = ENOUGH
    if fresh:
        way.on_break = way.service.reset
    files.send([(number, "", str(Path(files.root) / name)) for number, name in enumerate(contents)])
    files.close()
    assert {name: (way.script / name).read_bytes() for name in contents} == contents
    assert way.carried[2] < SIZE - ENOUGH // 2
    sizes = [(name, len(content)) for name, content in contents.items()]
    assert way.told == [FileMoved(name, "out", str(way.script / name), size) for name, size in sizes]
    assert sorted(path.name for path in way.script.iterdir()) == sorted(contents)


def test_outputs_that_changed_during_a_break_come_whole(way: FileConnection) -> None:
    files = way.task(FilesByConnection(str(way.script), (), (ScriptFile("out", str(way.script / "out")),)))
    made, changed = Path(files.root) / "out", os.urandom(SIZE)
    made.write_bytes(os.urandom(SIZE))
    way.breaks_at, way.on_break = ENOUGH, lambda: replace(made, changed)
    files.send([(0, "", str(made))])
    files.close()
    assert (way.script / "out").read_bytes() == changed
    assert way.carried[2] >= SIZE
    assert [path.name for path in way.script.iterdir()] == ["out"]


def test_what_came_before_a_break_goes_when_the_task_ends(way: FileConnection) -> None:
    files = way.task(FilesByConnection(str(way.script), (), (ScriptFile("out", str(way.script / "out")),)))
    (Path(files.root) / "out").write_bytes(os.urandom(SIZE))
    way.breaks_at = ENOUGH

    def ends() -> None:
        way.service.reset()
        way.service.forget([KEY])

    way.on_break = ends
    with pytest.raises(StagingError, match="does not wait for this try any more"):
        files.send([(0, "", str(Path(files.root) / "out"))])
    files.close()
    assert list(way.script.iterdir()) == []
    assert way.told == []


def test_inputs_that_were_there_are_told_also_where_the_outcome_comes_first(way: FileConnection) -> None:
    path = settled(way.script / "in", b"1")
    files = way.task(FilesByConnection(str(way.script), (ScriptFile("in", str(path)),), ()))
    take = way.service.take

    def outcome_first(message: Buffer) -> None:
        if unpack_file(message).step == FileStep.END:
            way.service.forget([KEY])
        take(message)

    way.service.take = outcome_first  # type: ignore[method-assign]
    files.bring(["in"], [])
    files.close()
    assert until(lambda: way.told) == [FileMoved("in", "in", str(path), 1)]
    assert until(lambda: not way.service._calls) is True
    assert not way.service._sending


def test_an_output_that_cannot_be_put_into_place_is_told(way: FileConnection) -> None:
    place = way.script / "file" / "out"
    (way.script / "file").write_bytes(b"")
    files = way.task(FilesByConnection(str(way.script), (), (ScriptFile("file/out", str(place)),)))
    (Path(files.root) / "out").write_bytes(b"1")
    with pytest.raises(StagingError):
        files.send([(0, "", str(Path(files.root) / "out"))])
    files.close()
    (told,) = way.told
    assert (told.url, told.direction, told.path) == ("file/out", "out", str(place))
    assert "cannot be written" in told.error


def test_the_ends_of_logs_that_grow_are_at_the_script_when_a_manager_is_killed(
    way: FileConnection, tmp_path: Path
) -> None:
    logs = tmp_path / "of the node"
    logs.mkdir()
    (logs / "worker_0.log").write_text("early\n")
    (logs / "manager.log").write_text("".join(f"line {n}\n" for n in range(10_000)))
    (logs / "other").write_text("no log")
    way.agent.log_dir = str(logs)
    way.agent.registered(1)
    until(lambda: way.words.of(1))
    with (logs / "worker_0.log").open("a") as log:
        log.write("last words\n")
    loss = Loss(LossKind.MANAGER, reason="it is lost")
    assert way.words.added(loss, 1).stderr_tail.endswith("line 9999\n")
    # The whole of what was written before it is told next comes, not only what is new.
    until(lambda: "last words" in way.words._ends[1][1]["worker_0.log"])
    way.service.left(1)
    written = tmp_path / "logs-1"
    until(lambda: (written / "worker_0.log").exists() and (written / "manager.log").exists())
    head, text = (written / "worker_0.log").read_text().split("\n", 1)
    assert "before it could send this log" in head
    assert text == "early\nlast words\n"
    end = (written / "manager.log").read_text().splitlines()[1:]
    assert end == [f"line {n}" for n in range(10_000 - len(end), 10_000)]
    assert sorted(path.name for path in written.iterdir()) == ["manager.log", "worker_0.log"]


def test_two_managers_of_a_node_bring_a_file_once(tmp_path: Path) -> None:
    content = os.urandom(SIZE)
    agents = [FileAgent(NodeDirectory(str(tmp_path / "shared")), "run") for _ in range(2)]
    asked: list[int] = []
    answers: dict[int, bytes] = {}

    def bring(number: int) -> None:
        files = NodeFiles(agents[number].name, KEY, "node7").begin()
        assert files is not None
        files.bring(["in"], [])
        answers[number] = (Path(files.root) / "in").read_bytes()
        files.close()

    def heard(number: int) -> FileMessage | None:
        for message in agents[number].outgoing():
            found = unpack_file(message)
            asked.extend([number] if found.step in (FileStep.WANT, FileStep.WANT_PACKED) else [])
            if found.step == FileStep.ASK:
                return found
        return None

    listed = pack_list([Entry(0, "", "f", SIZE, 0o644, "v")], packs=True)
    transfers, threads = [], [threading.Thread(target=bring, args=(number,)) for number in range(2)]
    for number, agent in enumerate(agents):
        agent.apart = True
        agent.registered(1)
        threads[number].start()
        found = until(lambda number=number: heard(number))  # type: ignore[misc]
        assert isinstance(found, FileMessage)
        transfers.append(found.transfer)
        agent.take(pack_file(FileStep.DATA, 1, found.transfer, listed))
    until(lambda: [heard(number) for number in range(2)] and asked)
    (one,) = asked
    body = pack_head(0, 0, SIZE) + content + body_digest(content)
    agents[one].take(pack_file(FileStep.DATA, 1, transfers[one], body))
    for thread in threads:
        thread.join(20)
    for number in range(2):
        heard(number)
    assert answers == {0: content, 1: content}
    assert asked == [one]
    for agent in agents:
        agent.close()
        agent._listener.close()
