"""Tasks killed while they bring their outputs out by themselves, on workers of the high-throughput executor."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
from pathlib import Path

import pytest
from staging_servers import visible

import flow_core as flow
from flow_core import File
from flow_core.errors import AppTimeout, FlowError
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_executors.testing.node import alive, until
from flow_providers import LocalProvider
from flow_staging import FTPInTaskStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

SIZE = 8 << 20
pytestmark = pytest.mark.timeout(120)


@flow.python_app
def write(size, pids, outputs=()):
    import os

    with open(pids, "a") as stream:
        stream.write(f"{os.getpid()}\n")
    for output in outputs:
        with open(output, "wb") as stream:
            stream.write(b"x" * size)
    return "written"


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


def config(tmp_path: Path, **options: object) -> flow.Config:
    executor = HighThroughputExecutor(
        label="nodes",
        max_workers=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[NoOpFileStaging(), FTPInTaskStaging()],
        working_dir=str(tmp_path / "wd"),
    )
    return flow.Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), **options)


def kill_at(ftp: FtpServer, root: Path, pids: Path, times: int) -> list[list[str]]:
    """Kill the worker when a quarter of its output has arrived, so often; returns what is visible at those times."""
    seen: list[list[str]] = []

    def watch(passed: int) -> None:
        if passed > SIZE // 4 and len(seen) < times:
            killed = [int(line) for line in pids.read_text().split()]
            if len(killed) > len(seen):
                seen.append(visible(root))
                os.kill(killed[-1], signal.SIGKILL)

    ftp.watch = watch
    return seen


def test_an_output_cut_by_the_death_of_its_worker_appears_whole_by_the_next_try(ftp, root, pids, tmp_path):
    seen = kill_at(ftp, root, pids, 1)
    with flow.load(config(tmp_path)):
        made = write(SIZE, str(pids), outputs=[File(ftp.url("/dir/out"))])
        assert made.outputs[0].result(90).url == ftp.url("/dir/out")
        assert made.result(10) == "written"
    assert len(pids.read_text().split()) == 2
    assert len(seen) == 1
    assert "out" not in seen[0]
    assert (root / "dir" / "out").read_bytes() == b"x" * SIZE
    assert visible(root) == ["dir", "out"]  # and the next try has removed what the killed one had sent


def test_an_output_of_a_killed_task_is_never_published(ftp, root, pids, tmp_path):
    kill_at(ftp, root, pids, 1)
    with flow.load(config(tmp_path, infrastructure_retries=0)):
        made = write(SIZE, str(pids), outputs=[File(ftp.url("/out"))])
        error = made.exception(90)
        assert isinstance(error, FlowError)
        assert "SIGKILL" in str(error)
        assert made.outputs[0].exception(10) is not None
        assert "out" not in visible(root)
        again = write(SIZE, str(pids), outputs=[File(ftp.url("/out"))])
        again.outputs[0].result(90)
    assert "out" in visible(root)


def test_an_output_of_a_task_over_its_walltime_is_never_published(ftp, root, pids, tmp_path):
    held = threading.Event()
    ftp.watch = lambda passed: passed > SIZE // 4 and held.wait(20) and None
    with flow.load(config(tmp_path)):
        made = write.options(walltime=2)(SIZE, str(pids), outputs=[File(ftp.url("/out"))])
        assert isinstance(made.exception(90), AppTimeout)
        held.set()
    assert "out" not in visible(root)


def test_an_output_of_a_task_that_was_ended_is_never_published(ftp, root, pids, tmp_path):
    held, arrived = threading.Event(), threading.Event()

    def hold(passed: int) -> None:
        if passed > SIZE // 4:
            arrived.set()
            held.wait(20)

    ftp.watch = hold
    with flow.load(config(tmp_path)):
        made = write(SIZE, str(pids), outputs=[File(ftp.url("/out"))])
        assert arrived.wait(60)
        made.cancel(kill=True)
        assert not concurrent.futures.wait([made], 60).not_done
        assert made.cancelled()
        worker = int(pids.read_text())
        until(lambda: not alive(worker), "the worker is killed", 15)  # its future had not to wait for that
        held.set()
    assert "out" not in visible(root)
