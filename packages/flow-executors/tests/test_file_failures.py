"""Files that cannot be brought or sent: the error names the path, and the side on which it was."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.errors import StagingError
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.file_cache import SmallFiles
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.wire.files import (
    SMALL_BYTES,
    Ending,
    Entry,
    FileMessage,
    FileStep,
    body_digest,
    pack_ending,
    pack_file,
    pack_head,
    pack_list,
    pack_small,
    unpack_file,
)
from flow_executors.worker.script_files import NodeFiles

MOST = 300_000  # bytes of a file, from here on: as on a full disk, with another error number

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FileAgent]:
    made = FileAgent(NodeDirectory(str(tmp_path / "work")))
    made.apart = True
    made.registered(1)
    yield made
    made.close()
    made._listener.close()  # the end of a manager's process does


@pytest.fixture
def full() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def heard(agent: FileAgent, step: FileStep) -> FileMessage:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for message in agent.outgoing():
            if (found := unpack_file(message)).step == step:
                return found
        time.sleep(0.01)
    raise AssertionError(f"no {step!r}")


def failure(agent: FileAgent, *said: tuple[FileStep, bytes]) -> StagingError:
    """Return how a bringing of one file ends to which the script says this."""
    files = NodeFiles(agent.name, 5, "node7").begin()
    assert files is not None
    caught: list[StagingError] = []

    def bring() -> None:
        try:
            files.bring(["data/big.bin"], [])
        except StagingError as error:
            caught.append(error)

    thread = threading.Thread(target=bring)
    thread.start()
    asked = heard(agent, FileStep.ASK)
    for step, body in said:
        agent.take(pack_file(step, 1, asked.transfer, body))
    thread.join(20)
    files.close()
    until = time.monotonic() + 10
    while agent._tasks and time.monotonic() < until:  # the agent lets go of the try
        time.sleep(0.01)
    assert caught
    return caught[0]


def stream(content: bytes, digest: bytes | None = None) -> list[tuple[FileStep, bytes]]:
    listed = pack_list([Entry(0, "", "f", len(content), 0o644, "v")])
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    bodies = [pack_head(0, 0, len(content)), *pieces, digest or body_digest(content)]
    return [(FileStep.DATA, body) for body in (listed, *bodies)]


def test_a_node_that_cannot_write_names_the_path_and_itself(agent: FileAgent, full: None) -> None:
    text = str(failure(agent, *stream(bytes(2 * MOST))))
    assert "data/big.bin cannot be written: File too large (on node node7)" in text


def test_what_changed_was_on_the_way(agent: FileAgent) -> None:
    text = str(failure(agent, *stream(bytes(2 * SMALL_BYTES), bytes(16))))
    assert text == "data/big.bin changed on its way (on the way to or from node node7)"


def packed(listed: list[bytes], record: bytes) -> list[tuple[FileStep, bytes]]:
    entries = [Entry(0, str(number), "f", len(one), 0o644, f"v{number}") for number, one in enumerate(listed)]
    return [(FileStep.DATA, pack_list(entries, packs=True)), (FileStep.DATA, record)]


def test_small_files_that_changed_were_on_the_way(agent: FileAgent) -> None:
    record = bytearray(pack_small([(0, 2), (1, 2)], b"1234"))
    record[-18] ^= 1
    text = str(failure(agent, *packed([b"12", b"34"], bytes(record))))
    assert text == "data/big.bin changed on its way (on the way to or from node node7)"


@pytest.mark.parametrize("files", [[(0, 2), (7, 2)], [(0, 1), (1, 3)], [(0, 2), (0, 2)]])
def test_small_files_that_were_not_asked_for_are_not_written(agent: FileAgent, files: list[tuple[int, int]]) -> None:
    text = str(failure(agent, *packed([b"12", b"34"], pack_small(files, b"1234"))))
    assert "small files that were not asked for" in text


def test_a_script_that_goes_on_with_a_file_of_which_nothing_is_here_is_refused(agent: FileAgent) -> None:
    listed = pack_list([Entry(0, "", "f", 2 * MOST, 0o644, "v")], packs=True)
    text = str(failure(agent, (FileStep.DATA, listed), (FileStep.DATA, pack_head(0, MOST, MOST))))
    assert "goes on with a file of which no part is here" in text


def test_an_error_of_the_script_is_told_as_it_is(agent: FileAgent) -> None:
    error = failure(agent, (FileStep.END, pack_ending(Ending("/home/a cannot be read on the script's machine", ()))))
    assert str(error) == "/home/a cannot be read on the script's machine"


def test_a_message_at_which_the_agent_fails_does_not_hold_up_the_next(agent: FileAgent) -> None:
    agent._messages.extend([object(), pack_file(FileStep.LOGS, 1, 0)])  # type: ignore[list-item]
    os.eventfd_write(agent._wake_fd, 1)
    assert heard(agent, FileStep.ASK).manager == 1


def test_small_files_that_do_not_fit_are_not_kept(tmp_path: Path, full: None) -> None:
    kept = SmallFiles(str(tmp_path))
    kept.keep(bytes(MOST - 10), [("one", MOST - 10)])
    with pytest.raises(OSError, match="No space left"):
        kept.keep(bytes(20), [("two", 20)])
    assert kept.find("two") is None
    kept.close()
