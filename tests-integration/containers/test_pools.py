"""Pools whose managers and workers run in containers of podman, and of docker's client on podman's socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from container_services import PATIENCE_S, containers, missing, pid_of

import flow
from flow import Config, Container, File, HighThroughputExecutor, LowLatencyExecutor, bash_app, python_app
from flow.providers import LocalProvider
from flow_core.errors import ExecutorBroken, TaskLost

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]


@python_app
def where() -> tuple[bool, str | None, str]:
    import os

    return os.path.exists("/run/.containerenv"), os.environ.get("FLOW_IMAGE"), os.getcwd()


@python_app
def read(path: str) -> str:
    return open(path).read()


@python_app
def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("changed")


@python_app
def die() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@bash_app
def number(inputs: list[File], outputs: list[File], stdout: str) -> str:
    return f"test -e /run/.containerenv && wc -c <{inputs[0]} >{outputs[0]} && echo in $FLOW_IMAGE"


@pytest.fixture
def loaded(
    tmp_path: Path, label: str, monkeypatch: pytest.MonkeyPatch, gone: Callable[[], None]
) -> Iterator[Callable[..., Any]]:
    """Give a function that loads a Config of one pool, made of options; it is ended before ``gone`` looks."""
    monkeypatch.chdir(tmp_path)

    def load(kind: type[Any] = HighThroughputExecutor, **options: Any) -> Any:
        chosen: dict[str, Any] = {
            "label": label,
            "max_workers": 1,
            "provider": LocalProvider(max_blocks=1),
            "heartbeat_period": 0.5,
            "heartbeat_threshold": 15,
        }
        executor = kind(**(chosen | options))
        flow.load(Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy_period=0.5))
        return executor

    yield load
    flow.clear()


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
def test_tasks_of_a_pool_run_in_its_image_which_has_nothing_of_flow(
    kind: type[Any], loaded: Callable[..., Any], image: str, label: str, gone: Callable[[], None], tmp_path: Path
) -> None:
    loaded(kind, container=image)
    assert where().result(PATIENCE_S) == (True, image, str(tmp_path))
    assert len(containers(label)) == 1
    flow.clear()
    assert containers(label) == []


def test_files_and_streams_of_tasks_are_those_of_the_script(
    loaded: Callable[..., Any], image: str, gone: Callable[[], None], tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("12345")
    loaded(container=image)
    made = number([File(str(tmp_path / "in"))], [File(str(tmp_path / "out"))], str(tmp_path / "said"))
    made.result(PATIENCE_S)
    assert (tmp_path / "out").read_text().strip() == "5"
    assert (tmp_path / "said").read_text() == f"in {image}\n"


def test_binds_and_options_of_the_user_reach_the_container(
    loaded: Callable[..., Any],
    image: str,
    gone: Callable[[], None],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = tmp_path_factory.mktemp("data")
    (data / "file").write_text("content")
    loaded(
        container=Container(
            image, "podman", binds=[f"{data}:/data:ro"], options=["--tmpfs=/scratch"], python="/usr/bin/python3"
        )
    )
    assert read("/data/file").result(PATIENCE_S) == "content"
    assert isinstance(write("/data/file").exception(PATIENCE_S), OSError)
    write("/scratch/file").result(PATIENCE_S)
    assert (data / "file").read_text() == "content"


def test_an_image_that_nobody_has_ends_the_tasks_with_an_error_that_names_it(
    loaded: Callable[..., Any], gone: Callable[[], None]
) -> None:
    loaded(container=Container("localhost/flow-no-such-image:1", "podman"))
    with pytest.raises(ExecutorBroken, match="podman has no image localhost/flow-no-such-image:1 there"):
        where().result(PATIENCE_S)


def test_an_image_without_the_python_that_is_wanted_is_named_with_what_was_tried(
    loaded: Callable[..., Any], image: str, gone: Callable[[], None]
) -> None:
    loaded(container=Container(image, "podman", python="/usr/bin/sed"))
    with pytest.raises(ExecutorBroken, match=f"no manager can start in image {image} .*/usr/bin/sed: no Python"):
        where().result(PATIENCE_S)


def test_a_worker_that_is_killed_in_a_container_is_replaced_there(
    loaded: Callable[..., Any], image: str, label: str, gone: Callable[[], None]
) -> None:
    loaded(container=image)
    assert isinstance(die().exception(PATIENCE_S), TaskLost)
    first = containers(label)
    assert where().result(PATIENCE_S)[0]
    assert containers(label) == first


@pytest.mark.parametrize("word", ["flow_executors.manager", "podman-init"])
def test_a_container_whose_manager_is_killed_is_removed_and_the_next_one_goes_on(
    word: str, loaded: Callable[..., Any], image: str, label: str, gone: Callable[[], None]
) -> None:
    loaded(container=image)
    assert where().result(PATIENCE_S)[0]
    (first,) = containers(label)
    os.kill(pid_of(first, word), signal.SIGKILL)
    assert where().result(PATIENCE_S)[0]
    deadline = time.monotonic() + PATIENCE_S
    while first in containers(label):
        assert time.monotonic() < deadline, "the container of the killed manager is left"
        time.sleep(0.2)


def _clients(label: str) -> list[int]:
    """Return the pids of podman's clients that run containers of an executor."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"podman", b"run"] and any(f"--name=flow-{label}".encode() in word for word in words):
                found.append(int(entry.name))
    return found


def test_a_container_whose_client_is_killed_is_removed(
    loaded: Callable[..., Any], image: str, label: str, gone: Callable[[], None]
) -> None:
    loaded(container=image)
    assert where().result(PATIENCE_S)[0]
    (first,) = containers(label)
    (client,) = _clients(label)
    os.kill(client, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while first in containers(label):
        assert time.monotonic() < deadline, "the container without client is left"
        time.sleep(0.2)
    assert where().result(PATIENCE_S)[0]


def test_a_container_whose_whole_job_is_killed_at_once_is_removed(
    loaded: Callable[..., Any], image: str, label: str, gone: Callable[[], None]
) -> None:
    loaded(container=image)
    assert where().result(PATIENCE_S)[0]
    (first,) = containers(label)
    (client,) = _clients(label)
    os.killpg(os.getpgid(client), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while first in containers(label):
        assert time.monotonic() < deadline, "the container without job is left"
        time.sleep(0.2)
    assert where().result(PATIENCE_S)[0]


def test_nothing_is_left_of_a_script_that_is_killed(
    image: str, label: str, gone: Callable[[], None], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import time
            import flow
            from flow import Config, HighThroughputExecutor, python_app
            from flow.providers import LocalProvider

            @python_app
            def stay():
                import time
                open("begun", "w").close()
                time.sleep(100)

            pool = HighThroughputExecutor(
                label={label!r}, max_workers=1, container={image!r}, heartbeat_period=0.5, heartbeat_threshold=10,
                provider=LocalProvider(max_blocks=1),
            )
            with flow.load(Config(executors=[pool])):
                stay().result()
        """)
    )
    process = subprocess.Popen([sys.executable, script], cwd=tmp_path)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "no task began"
            time.sleep(0.1)
        assert len(containers(label)) == 1
    finally:
        process.kill()
        process.wait()
    gone()


def test_dockers_client_runs_a_pool_by_podmans_socket(
    loaded: Callable[..., Any],
    image: str,
    label: str,
    gone: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shutil.which("docker") is None:
        missing("docker's client is not installed; get it by tests-integration/services/docker.sh install")
    socket = tmp_path / "docker.sock"
    with subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{socket}"]) as server:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not socket.exists():
                assert time.monotonic() < deadline, "podman does not serve"
                time.sleep(0.1)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
            loaded(container=Container(image, "docker"))
            assert where().result(PATIENCE_S)[1] == image
            flow.clear()
            gone()
            loaded(label=f"{label}-2", container=Container("localhost/flow-no-such-image:1", "docker"))
            with pytest.raises(ExecutorBroken, match="docker has no image localhost/flow-no-such-image:1 there"):
                where().result(PATIENCE_S)
        finally:
            flow.clear()
            server.terminate()
