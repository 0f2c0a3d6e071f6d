"""The file system of the run hangs for a while, as one of a server that does not answer: who touches it waits.

The file system is a FUSE one (bindfs), whose process is stopped. Needs root, /dev/fuse and bindfs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rows import rows
from trial import Start

pytestmark = pytest.mark.timeout(300)

FOR_A_WHILE_S = 7.0
"""Longer than the heartbeat threshold of the run."""
ENDED_S = 60.0
"""Thirty seconds of cleaning up, and what a busy machine makes of it."""


class HungDisk:
    """A file system that can be made to hang."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "shared"
        behind = directory / "behind"
        self.path.mkdir()
        behind.mkdir()
        command = ["bindfs", "-f", str(behind), str(self.path)]
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while not os.path.ismount(self.path):
            if self._server.poll() is not None:
                assert self._server.stderr is not None
                pytest.skip(f"no FUSE file system here: {self._server.stderr.read()}")
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Answer nothing meanwhile."""
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Take it away."""
        self._server.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "-l", str(self.path)], check=True, timeout=20)
        self._server.terminate()
        self._server.wait(20)
        assert self._server.stderr is not None
        self._server.stderr.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[HungDisk]:
    if shutil.which("bindfs") is None or os.geteuid() != 0:
        pytest.skip("bindfs is not installed, or this is not root: tests-integration/services/bindfs.sh install")
    made = HungDisk(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("kind", rows(["htex", "llex", "threads", "pool"], chaos=[]))
def test_a_file_system_that_hangs_for_a_while_costs_no_task(start: Start, disk: HungDisk, kind: str) -> None:
    run = start(kind, disk.path)
    with disk.hanging():
        time.sleep(FOR_A_WHILE_S)
    run.check()


@pytest.mark.parametrize("kind", rows(["htex", "llex"], chaos=[]))
def test_a_manager_that_dies_while_the_file_system_hangs_is_replaced(start: Start, disk: HungDisk, kind: str) -> None:
    run = start(kind, disk.path)
    for pid in run.pids("manager"):
        os.kill(pid, signal.SIGKILL)
    with disk.hanging():
        time.sleep(FOR_A_WHILE_S)
    run.check()


@pytest.mark.parametrize("kind", rows(["htex", "llex", "threads", "pool"], chaos=[]))
def test_sigterm_ends_a_script_whose_file_system_hangs(start: Start, disk: HungDisk, kind: str) -> None:
    run = start(kind, disk.path, setup={"tasks": 1000})
    with disk.hanging():
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.process.wait(ENDED_S) == -signal.SIGTERM
    run.check_gone()


ENDING = """
import concurrent.futures, multiprocessing, sys
import flow
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider

kind, how, directory = sys.argv[1:]

@flow.python_app(cache=True)
def rows(x):
    return [x] * 1000

def executor():
    if kind == "threads":
        return flow.ThreadPoolExecutor("x")
    if kind == "pool":
        return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    blocks = {"htex": flow.HighThroughputExecutor, "llex": flow.LowLatencyExecutor}
    return blocks[kind]("x", max_workers=1, provider=LocalProvider(init_blocks=1, max_blocks=1))

if __name__ == "__main__":
    options = {"checkpoint_mode": "dfk_exit", "monitoring": MonitoringHub(), "run_dir": f"{directory}/runinfo"}
    kernel = flow.load(flow.Config(executors=[executor()], **options))
    assert [len(rows(n).result()) for n in range(5)] == [1000] * 5
    print("ready", flush=True)
    sys.stdin.readline()
    if how == "cleanup":
        kernel.cleanup()
    print("the end", flush=True)
"""


@pytest.mark.parametrize("how", ["cleanup", "at exit"])
@pytest.mark.parametrize("kind", rows(["htex", "llex", "threads", "pool"], chaos=["threads"]))
def test_the_end_of_a_script_whose_file_system_hangs_is_bounded_and_says_what_was_given_up(
    disk: HungDisk, tmp_path: Path, kind: str, how: str
) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    command = [sys.executable, str(tmp_path / "ending.py"), kind, how, str(disk.path)]
    # To a file, and not a pipe: a child that waits in the file system holds a pipe open until that answers again.
    with (
        open(tmp_path / "told", "w") as errors,
        subprocess.Popen(
            command,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as script,
    ):
        assert script.stdin is not None
        assert script.stdout is not None
        try:
            assert script.stdout.readline() == "ready\n"
            with disk.hanging():
                script.stdin.write("go\n")
                script.stdin.flush()
                assert script.wait(ENDED_S) == 1, (tmp_path / "told").read_text()
        finally:
            with suppress(ProcessLookupError):  # all of them have ended
                os.killpg(script.pid, signal.SIGKILL)
    told = (tmp_path / "told").read_text()
    last = told.rstrip().splitlines()[-1]
    assert f"the run in {disk.path}/runinfo/000 could not write the checkpoint, " in last
    assert "does not answer" in last
