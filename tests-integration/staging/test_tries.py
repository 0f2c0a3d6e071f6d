"""What is published is what a try that succeeded has made, on every kind of executor."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import File
from flow_core.errors import MissingOutputs, TaskLost
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers import LocalProvider
from flow_staging import FTPInTaskStaging, ZipFileStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

METHODS = [NoOpFileStaging(), ZipFileStaging()]


def threads():
    return ThreadPoolExecutor(storage_access=METHODS, max_threads=4)


def htex():
    return HighThroughputExecutor(
        max_workers=2, provider=LocalProvider(init_blocks=1, max_blocks=1), storage_access=METHODS
    )


def llex():
    return LowLatencyExecutor(
        max_workers=2, provider=LocalProvider(init_blocks=1, max_blocks=1), storage_access=METHODS
    )


def pool():
    return ProcessPoolExecutor(2)


OURS = [threads, htex, llex]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def running(executor, **options):
    staging = METHODS if isinstance(executor, ProcessPoolExecutor) else None
    return flow.load(flow.Config(executors=[executor], staging=staging, **options))


@flow.python_app
def half_then_nothing(flag, outputs=()):
    import os

    if not os.path.exists(flag):
        open(flag, "w").close()
        with open(outputs[0], "w") as stream:
            stream.write("half of a failed try")
        raise RuntimeError


@flow.bash_app
def half_then_nothing_by_bash(flag, outputs=()):
    return f"test -e {flag} || {{ touch {flag}; echo half > {outputs[0]}; exit 3; }}"


@flow.python_app
def half_then_killed(flag, outputs=()):
    import os
    import signal

    tried = os.path.exists(flag)
    with open(flag, "a"):
        pass
    with open(outputs[0], "a") as stream:
        stream.write("whole" if tried else "half ")
    if not tried:
        os.kill(os.getpid(), signal.SIGKILL)


@flow.python_app
def always_killed(outputs=()):
    import os
    import signal

    with open(outputs[0], "a") as stream:
        stream.write("half ")
    os.kill(os.getpid(), signal.SIGKILL)


@flow.python_app
def write_slowly(letter, outputs=()):
    import time

    with open(outputs[0], "w") as stream:
        for _ in range(10):
            stream.write(letter)
            stream.flush()
            time.sleep(0.01)


def member(archive: str, name: str) -> str | None:
    if not os.path.exists(archive):
        return None
    with zipfile.ZipFile(archive) as opened:
        return opened.read(name).decode() if name in opened.namelist() else None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [*OURS, pool])
def test_half_a_file_of_a_failed_try_is_not_published(make):
    with running(make(), retries=1):
        for app in (half_then_nothing, half_then_nothing_by_bash):
            name = app.__name__
            Path(f"{name}-older").write_text("older")
            futures = [
                app(os.path.abspath(f"{name}-{n}.flag"), outputs=[File(url)])
                for n, url in enumerate((f"zip:a.zip/{name}", f"{name}-new", f"{name}-older"))
            ]
            assert [type(future.outputs[0].exception(60)) for future in futures] == [MissingOutputs] * 3
            assert member("a.zip", name) is None
            assert not Path(f"{name}-new").exists()
            assert Path(f"{name}-older").read_text() == "older"
    assert not [name for name in os.listdir() if "flow-" in name]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [htex, llex])
def test_half_a_file_of_a_killed_try_is_not_published(make):
    Path("older").write_text("older")
    with running(make()):
        futures = [
            half_then_killed(os.path.abspath(f"{n}.flag"), outputs=[File(url)])
            for n, url in enumerate(("zip:a.zip/h", "new", "older"))
        ]
        for future in futures:
            future.outputs[0].result(60)
    assert member("a.zip", "h") == "whole"
    assert [Path(name).read_text() for name in ("new", "older")] == ["whole", "whole"]
    assert not [name for name in os.listdir() if "flow-" in name]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [htex, llex])
def test_a_task_whose_last_try_is_killed_changes_nothing(make):
    Path("older").write_text("older")
    with running(make(), infrastructure_retries=0):
        futures = [always_killed(outputs=[File(url)]) for url in ("zip:a.zip/h", "new", "older")]
        assert all(isinstance(future.exception(60), TaskLost) for future in futures)
    assert member("a.zip", "h") is None
    assert not Path("new").exists()
    assert Path("older").read_text() == "older"
    assert not [name for name in os.listdir() if "flow-" in name]


@pytest.mark.timeout(120)
def test_a_killed_worker_leaves_no_directory_of_its_task(tmp_path):
    (tmp_path / "root").mkdir()
    executor = HighThroughputExecutor(
        max_workers=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[NoOpFileStaging(), FTPInTaskStaging()],
        working_dir="wd",
    )
    server = FtpServer(tmp_path / "root")
    with running(executor, infrastructure_retries=0):
        assert isinstance(always_killed(outputs=[File(server.url("/h"))]).exception(60), TaskLost)
        assert list((tmp_path / "wd").glob(".flow-staged-*/*"))
    server.close()
    assert os.listdir(tmp_path / "wd") == []
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", OURS)
def test_two_tasks_with_one_output_publish_one_whole(make):
    with running(make()):
        futures = [write_slowly(letter, outputs=[File("zip:a.zip/dup")]) for letter in "AB"]
        for future in futures:
            future.outputs[0].result(60)
    assert member("a.zip", "dup") in ("A" * 10, "B" * 10)
