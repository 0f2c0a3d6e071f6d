"""Commands on other nodes of a task: from an agent by its manager to another manager, and back."""

from __future__ import annotations

import os
import secrets
import select
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core import prctl
from flow_core.prctl import become_subreaper
from flow_core.remote.processes import table
from flow_executors.common.task_ranks import RankPlace, RankPlacement, RankRequest
from flow_executors.errors import BadMessage
from flow_executors.mpi import rank_files
from flow_executors.mpi.environment import DIRECTORY, TASK
from flow_executors.mpi.node_shell import DaemonLoss, NodeShell, program
from flow_executors.mpi.streams import LONGEST, Wanted, pack_frame, pack_wanted, take_frames, unpack_wanted
from flow_executors.wire.ranks import RemoteStep, from_manager, unpack_remote

KEY = 77
PLACEMENT = RankPlacement((RankPlace(0, os.uname().nodename, 1, 1), RankPlace(1, "other", 1, 1)))


class Nodes:
    """Two managers' shells, and the interchange between them."""

    def __init__(self, folder: Path) -> None:
        self.shells = [NodeShell(lambda: str(folder), name, "auto") for name in (os.uname().nodename, "other")]
        self.losses: list[DaemonLoss] = []
        self.lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._relay)
        self._thread.start()
        self.directory = self.shells[0].open_task(KEY, PLACEMENT, RankRequest(2, 1, 2))[DIRECTORY]
        self.shells[1].reserve(KEY, {"DEVICES": "3"})

    def _relay(self) -> None:
        poller = select.poll()
        for shell in self.shells:
            poller.register(shell.ready_fd, select.POLLIN)
        while not self._ended.is_set():
            poller.poll(50)
            for number, shell in enumerate(self.shells):
                for message in shell.outgoing():
                    to = self.shells[unpack_remote(message).manager]
                    to.received(unpack_remote(from_manager(message, number)))
                self.losses += shell.losses()
                if self.losses:
                    self.lost.set()

    def start(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        """Call the agent as mpiexec does."""
        variables = {**os.environ, DIRECTORY: self.directory, "MINE": "m"}
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [f"{self.directory}/flow-on", *words],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def run(self, *words: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Call the agent, and return its exit code, output and errors."""
        with self.start(*words) as agent:
            try:
                output, errors = agent.communicate(given, timeout=30)
            finally:
                agent.kill()
        return agent.returncode, output, errors

    def close(self) -> None:
        """End all."""
        for shell in self.shells:
            shell.end_task(KEY)
        self._ended.set()
        self._thread.join(10)
        for shell in self.shells:
            shell.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    # Longer than the path of a socket may be.
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    made = Nodes(folder)
    yield made
    made.close()


@pytest.fixture
def adopting() -> Iterator[None]:
    """Have this process adopt orphans, as a manager does."""
    become_subreaper()
    yield
    prctl._prctl(prctl._CHILD_SUBREAPER, 0)


def wait_until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1500):
        if true():
            return
        pause.wait(0.02)
    pytest.fail("it did not come within 30 s")


def test_a_command_runs_on_the_other_node_with_the_tasks_variables_and_its_devices(nodes: Nodes) -> None:
    assert nodes.run("-x", "other", "echo", "$MINE", "$DEVICES;", "pwd;", "exit 3") == (
        3,
        f"m 3\n{os.getcwd()}\n".encode(),
        b"",
    )


def test_more_than_a_window_goes_in_and_comes_back(nodes: Nodes) -> None:
    given = bytes(range(256)) * 8192
    assert nodes.run("other", "cat; echo said >&2", given=given) == (0, given, b"said\n")


def test_on_the_tasks_own_node_the_agent_becomes_the_command(nodes: Nodes) -> None:
    assert nodes.run(os.uname().nodename, "echo here") == (0, b"here\n", b"")


def test_a_longer_form_of_a_nodes_name_is_known(nodes: Nodes) -> None:
    assert nodes.run("other.example.org", "echo there")[:2] == (0, b"there\n")


def test_a_node_that_is_none_of_the_task_is_named(nodes: Nodes) -> None:
    code, _, errors = nodes.run("elsewhere", "true")
    assert code == 255
    assert b"elsewhere is no node of this task" in errors


def test_a_node_that_keeps_no_place_starts_nothing(nodes: Nodes) -> None:
    nodes.shells[1].end_task(KEY)
    code, _, errors = nodes.run("other", "echo started")
    assert code == 255
    assert b"no place is kept on other" in errors


def test_a_daemon_that_is_killed_is_told_with_its_node_and_nothing_of_it_is_left(nodes: Nodes) -> None:
    code, output, _ = nodes.run("other", "setsid sleep 341 & echo $!; kill -9 $$")
    nodes.lost.wait(30)
    assert code == 137
    assert [(loss.key, loss.node) for loss in nodes.losses] == [(KEY, "other")]
    assert "signal 9" in nodes.losses[0].how
    wait_until(lambda: int(output) not in table())


def test_a_guard_that_is_killed_is_a_loss_and_what_was_below_it_ends(nodes: Nodes, adopting: None) -> None:
    agent = nodes.start("other", "sleep 344 & echo $PPID $!; wait")
    with agent:
        assert agent.stdout is not None
        guard, pid = map(int, agent.stdout.readline().split())
        os.kill(guard, 9)
        assert agent.wait(30) == 137
    assert nodes.lost.wait(30)
    wait_until(lambda: pid not in table())


def test_an_agent_that_is_killed_takes_its_command_along(nodes: Nodes) -> None:
    agent = nodes.start("other", "echo $$; trap '' TERM; sleep 342 & wait; sleep 342")
    with agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        assert pid in table()
        agent.kill()
    wait_until(lambda: pid not in table())
    assert nodes.losses == []


def test_the_end_of_a_task_ends_its_daemons_also_those_that_went_away(nodes: Nodes) -> None:
    agent = nodes.start("other", "setsid sh -c 'echo $$; exec sleep 343' & wait")
    with agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        nodes.shells[1].end_task(KEY)
        assert agent.wait(30) != 0
    wait_until(lambda: pid not in table())


def test_the_agents_socket_is_for_this_user_alone(nodes: Nodes) -> None:
    folder = Path(nodes.directory)
    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "agent", folder / "flow-on")]
    assert modes == [0o700, 0o600, 0o700]


def test_the_directory_of_a_task_goes_with_it(nodes: Nodes) -> None:
    nodes.shells[0].end_task(KEY)
    assert not Path(nodes.directory).exists()


def test_frames_come_whole_however_they_are_cut() -> None:
    data = pack_frame(RemoteStep.STDIN, b"abc") + pack_frame(RemoteStep.STDIN) + pack_frame(RemoteStep.STDOUT, b"d")
    buffer, found = bytearray(), []
    for byte in data:
        buffer.append(byte)
        found += take_frames(buffer)
    assert found == [(RemoteStep.STDIN, b"abc"), (RemoteStep.STDIN, b""), (RemoteStep.STDOUT, b"d")]
    assert not buffer


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x00\x77", (LONGEST + 1).to_bytes(4, "little") + b"\x01"])
def test_a_frame_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        take_frames(bytearray(data))


@pytest.mark.parametrize("body", [b"", b"{}", b'["a", "b", "c"]', b'["a", "b", "c", {"d": 1}]', b"[1, 2, 3, {}]"])
def test_the_start_of_an_agent_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack_wanted(body)


def test_the_start_of_an_agent_comes_as_it_was() -> None:
    wanted = Wanted("n1", "echo 'ä'", "/tmp", {"A": "b\udc80"})
    assert unpack_wanted(pack_wanted(wanted)) == wanted


def test_a_guard_whose_manager_has_died_removes_the_files_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    mark = f"test-{secrets.token_hex(8)}"
    kept = [Path(place) for place in rank_files.make(mark) if place]
    assert kept[0].parent == tmp_path
    for place in kept:
        (place / "session").touch()
    manager, control = socket.socketpair()
    with control:
        guard = subprocess.Popen(
            [*program("flow_executors.mpi.guard"), str(control.fileno()), "sleep", "300"],
            pass_fds=(control.fileno(),),
            env={**os.environ, TASK: mark},
        )
    try:
        manager.close()
        assert guard.wait(40) == 0
    finally:
        guard.kill()
        rank_files.remove(mark)
    assert not any(place.exists() for place in kept)


def test_a_link_is_not_taken_for_a_directory_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    mark = f"test-{secrets.token_hex(8)}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"flow-ranks-{mark}").symlink_to(elsewhere)
    try:
        assert rank_files.make(mark)[0] == ""
    finally:
        rank_files.remove(mark)
    assert elsewhere.exists()
