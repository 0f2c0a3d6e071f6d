"""Pools of runtimes whose containers are plain processes: apptainer, singularity, charliecloud, shifter's stand-in."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from container_services import PATIENCE_S, by_script, missing

import flow
from flow import Config, Container, HighThroughputExecutor, bash_app, python_app
from flow.providers import LocalProvider
from flow_core.errors import AppTimeout, ExecutorBroken
from flow_executors.testing.local_run import processes_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]

RUNTIMES = ["apptainer", "singularity", "charliecloud", "shifter"]


@python_app
def where() -> tuple[str, str | None, str, bool]:
    import os
    import sys

    return os.path.realpath(sys.executable), os.environ.get("FLOW_IMAGE"), os.getcwd(), os.path.exists("/work")


@bash_app
def made(path: str) -> str:
    return f"echo $FLOW_IMAGE >{path}"


@bash_app
def said_there(stdout: str) -> str:
    return "test -d /opt/python && echo $WORD $PWD"


@pytest.fixture
def commands(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Give a function that puts a runtime on PATH and returns the options that it needs for ``root``."""
    monkeypatch.chdir(tmp_path)
    commands = tmp_path / "commands"
    commands.mkdir()
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")

    def prepared(runtime: str) -> list[str]:
        if runtime == "charliecloud":
            if shutil.which("ch-run") is None:
                missing("charliecloud is not installed; get it by tests-integration/services/charliecloud.sh install")
        elif runtime == "shifter":
            by_script("shifter_stand_in", "commands", str(commands))
            monkeypatch.setenv("SHIFTER_IMAGE", "docker:lab/image:1")
            monkeypatch.setenv("SHIFTER_ROOT", str(root))
        else:
            by_script("apptainer", "commands", str(commands))
            by_script("apptainer", "run", "/usr/bin/apptainer", "--version")
        # The release of Debian has no --write-fake yet, and the image is a directory of this test alone.
        return ["--write"] if runtime == "charliecloud" else []

    return prepared


@pytest.fixture
def started(
    commands: Callable[[str], list[str]], label: str, tmp_path: Path
) -> Iterator[Callable[[str, str], HighThroughputExecutor]]:
    """Give a function that loads a pool of a runtime and an image; at the end no process of it may be left."""

    def start(runtime: str, image: str) -> HighThroughputExecutor:
        options = commands(runtime)
        executor = HighThroughputExecutor(
            label,
            max_workers=1,
            container=Container(image, runtime, options=options),
            provider=LocalProvider(max_blocks=1),
            heartbeat_period=0.5,
            heartbeat_threshold=15,
        )
        flow.load(Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy_period=0.5))
        return executor

    yield start
    flow.clear()
    deadline = time.monotonic() + PATIENCE_S
    while left := processes_of(f"--executor={label}"):
        assert time.monotonic() < deadline, f"left: {left}"
        time.sleep(0.1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pool_runs_in_an_image_of_the_runtime(
    runtime: str, started: Callable[[str, str], HighThroughputExecutor], root: Path, tmp_path: Path
) -> None:
    image = "lab/image:1" if runtime == "shifter" else str(root)
    started(runtime, image)
    python, told, directory, _ = where().result(PATIENCE_S)
    assert python.startswith("/opt/python/bin/")
    assert told == (f"docker:{image}" if runtime == "shifter" else image)
    assert directory == str(tmp_path)
    made(str(tmp_path / "file")).result(PATIENCE_S)
    assert (tmp_path / "file").read_text().strip() == told


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_that_is_not_there_ends_the_tasks_with_an_error_that_names_it(
    runtime: str, started: Callable[[str, str], HighThroughputExecutor]
) -> None:
    image = "no/such:1" if runtime == "shifter" else "/no/such/image"
    started(runtime, image)
    program = {"charliecloud": "ch-run"}.get(runtime, runtime)
    with pytest.raises(ExecutorBroken, match=f"{program} has no image .*{image} there"):
        where().result(PATIENCE_S)


@pytest.mark.parametrize("runtime", ["apptainer", "charliecloud"])
def test_a_job_that_is_killed_takes_its_container_with_it(
    runtime: str, started: Callable[[str, str], HighThroughputExecutor], root: Path, label: str
) -> None:
    executor = started(runtime, str(root))
    where().result(PATIENCE_S)
    (first,) = executor.connected_managers()
    pid = min(processes_of(f"--executor={label}"))
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while first.manager_id in [one.manager_id for one in executor.connected_managers()]:
        assert time.monotonic() < deadline, "the killed manager is still known"
        time.sleep(0.1)
    assert where().result(PATIENCE_S)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tasks_run_in_an_image_of_the_runtime_beside_others(
    runtime: str, commands: Callable[[str], list[str]], root: Path, label: str, tmp_path: Path
) -> None:
    options = commands(runtime)
    pool = HighThroughputExecutor(label, max_workers=1, provider=LocalProvider(max_blocks=1))
    flow.load(Config(executors=[pool], run_dir=str(tmp_path / "runinfo"), strategy_period=0.5))
    try:
        assert not where().result(PATIENCE_S)[0].startswith("/opt/python/")
        for keep in (False, True):
            image = "lab/image:1" if runtime == "shifter" else str(root)
            container = Container(image, runtime, options=options, keep=keep)
            assert where.options(container=container)().result(PATIENCE_S)[0].startswith("/opt/python/bin/")
            said = str(tmp_path / f"said-{keep}")
            command = said_there.options(container=container, environment={"WORD": "word"}, stdout=said)
            assert command().result(PATIENCE_S) == 0
            assert Path(said).read_text() == f"word {tmp_path}\n"
            late = made.options(container=container, walltime=2)
            assert isinstance(late("/dev/null; trap '' TERM; sleep 631").exception(PATIENCE_S), AppTimeout)
    finally:
        flow.clear()
    deadline = time.monotonic() + PATIENCE_S
    while left := processes_of("631"):
        assert time.monotonic() < deadline, f"left: {left}"
        time.sleep(0.1)
