"""What of a task in a container is known without any runtime: its line, binds, errors and its key."""

from __future__ import annotations

import os
import pickle
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import flow_core as flow
from flow_core.errors import BashExitFailure, ContainerError
from flow_core.files import File
from flow_core.graph.growth import ran_out_of
from flow_core.interfaces.call import FileProgress, NodeContext, Resources, TaskSpec, TaskStep
from flow_core.interfaces.container import Container
from flow_core.memo import image_identity
from flow_core.remote import task_container
from flow_core.remote.bash import BashStep
from flow_core.remote.container_removal import Guarded
from flow_core.remote.run import execute
from flow_core.remote.task_container import TaskContainer

# Stands in for podman: it runs the command after the image on this machine, with a log of the lines that it was given.
PODMAN = """#!/bin/bash
echo "$@" >>"$LOG"
case $1 in
  run) while [ "$1" != example/image:1 ]; do shift || exit 125; done; shift; exec "$@" ;;
  image) [ "${!#}" = example/image:1 ] || exit 1; echo sha256:1234 ;;
  pull) echo "warning: no such registry" >&2; echo "Error: no such image" >&2; exit 125 ;;
esac
"""


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for podman, the only runtime on PATH; gives its log."""
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(PODMAN)
    inside = program.with_name("python3")  # that of the image, which has the release of this one
    inside.write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    for made in (program, inside):
        made.chmod(made.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(task_container, "_here", set())
    monkeypatch.setattr(task_container, "_failed", {})
    monkeypatch.setattr(image_identity, "_known", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log").touch()
    return tmp_path / "log"


def in_container(container: Container, *files: str, spec: TaskSpec | None = None) -> TaskContainer:
    return TaskContainer(container, spec or TaskSpec(container=container), NodeContext(), files)


def line_of(container: TaskContainer, command: str = "true") -> list[str]:
    with container.arguments(command) as (words, _):
        return words


def test_a_command_sees_its_own_directory_and_those_of_its_files(podman: Path, tmp_path: Path) -> None:
    other = tmp_path.parent / f"{tmp_path.name}-other"
    other.mkdir()
    words = line_of(in_container(Container("example/image:1"), str(other / "in.txt"), str(tmp_path / "out.txt")))
    volumes = [word for word in words if word.startswith("--volume=")]
    assert volumes == [f"--volume={path}:{path}" for path in sorted((str(tmp_path), str(other)))]
    assert f"--workdir={tmp_path}" in words


def test_a_file_in_a_directory_of_every_image_is_bound_alone(podman: Path) -> None:
    words = line_of(in_container(Container("example/image:1"), "/etc/passwd"))
    assert "--volume=/etc/passwd:/etc/passwd" in words
    assert "--volume=/etc:/etc" not in words


def test_memory_and_variables_of_the_task_are_on_the_line_without_their_values(podman: Path) -> None:
    spec = TaskSpec(Resources(memory_mb=100), environment=(("TOKEN", "secret"),))
    words = line_of(in_container(Container("example/image:1"), spec=spec))
    assert "--memory=100m" in words
    assert "--env=TOKEN" in words
    assert "secret" not in " ".join(words)


def test_a_command_that_is_too_long_for_an_argument_goes_by_a_file(podman: Path) -> None:
    container = in_container(Container("example/image:1"))
    with container.arguments(f"true # {'x' * 200_000}") as (words, _):
        assert max(map(len, words)) < 10_000
        path = words[-1]
        assert os.path.getsize(path) > 200_000
    assert not os.path.exists(path)


def test_a_bash_app_runs_by_the_runtime_with_streams_and_exit_code(podman: Path, tmp_path: Path) -> None:
    spec = TaskSpec(container=Container("example/image:1"), environment=(("WHO", "you"),))
    step = BashStep("f", ("out.txt", "w"), ("err.txt", "w"), spec.environment)

    def command() -> str:
        return "echo hello $WHO; echo bad >&2; exit 3"

    with pytest.raises(BashExitFailure, match="in a container of 'example/image:1' \\(podman\\)") as raised:
        execute(command, (), {}, spec, (step,), NodeContext(main_thread=True))
    assert raised.value.exitcode == 3
    assert raised.value.stderr_tail == "bad"
    assert (tmp_path / "out.txt").read_text() == "hello you\n"


@pytest.mark.parametrize("keep", [False, True])
def test_a_python_app_runs_in_another_process_and_raises_here(podman: Path, keep: bool) -> None:
    spec = TaskSpec(container=Container("example/image:1", keep=keep))

    def pid(divisor: int) -> int:
        import os

        print("a word of the task's own")
        return os.getpid() // divisor

    where = NodeContext(main_thread=True)
    first = execute(pid, (1,), {}, spec, (), where)
    assert first != os.getpid()
    with pytest.raises(ZeroDivisionError):
        execute(pid, (0,), {}, spec, (), where)
    assert (execute(pid, (1,), {}, spec, (), where) == first) is keep


def test_commands_in_a_kept_container_have_their_own_output_and_variables(podman: Path, tmp_path: Path) -> None:
    container = Container("example/image:1", keep=True)
    for number in range(3):
        spec = TaskSpec(container=container, environment=(("NUMBER", f"it's {number}"),))
        step = BashStep("f", (f"{number}.txt", "w"), None, spec.environment)
        execute(lambda: 'echo "$NUMBER"', (), {}, spec, (step,), NodeContext(main_thread=True))
    assert [(tmp_path / f"{number}.txt").read_text() for number in range(3)] == [f"it's {n}\n" for n in range(3)]
    assert podman.read_text().count("run ") == 1


def test_an_image_that_cannot_be_fetched_is_named_with_what_the_runtime_says(podman: Path) -> None:
    spec = TaskSpec(container=Container("example/none:1"))
    with pytest.raises(ContainerError, match=r"'example/none:1' is not on node .*podman cannot fetch.*no such image"):
        execute(lambda: 1, (), {}, spec, (), NodeContext(main_thread=True))


def test_an_image_file_that_is_not_there_is_named(podman: Path) -> None:
    (podman.parent / "bin" / "apptainer").symlink_to("podman")
    with pytest.raises(ContainerError, match=r"'/no/such.sif' of a container is not on node .*there is no such file"):
        execute(lambda: 1, (), {}, TaskSpec(container=Container("/no/such.sif")), (), NodeContext(main_thread=True))


def test_a_node_without_a_runtime_says_what_it_looked_for(podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ContainerError, match=r"has no runtime for .*none of podman, docker, .* is on PATH"):
        execute(lambda: 1, (), {}, TaskSpec(container=Container("example/image:1")), (), NodeContext(main_thread=True))
    one = TaskSpec(container=Container("example/image:1", runtime="podman"))
    with pytest.raises(ContainerError, match=r": podman is not on PATH \(/nowhere\)"):
        execute(lambda: 1, (), {}, one, (), NodeContext(main_thread=True))


def test_the_limit_is_named_where_a_container_was_killed(podman: Path) -> None:
    spec = TaskSpec(Resources(memory_mb=64), container=Container("example/image:1"))
    step = BashStep("f")
    with pytest.raises(BashExitFailure, match=r"137 is SIGKILL.*64 MiB"):
        execute(lambda: "exit 137", (), {}, spec, (step,), NodeContext(main_thread=True))


@pytest.mark.parametrize("code", [126, 127])
def test_a_runtime_that_fails_itself_is_named_and_its_container_removed(podman: Path, code: int) -> None:
    spec = TaskSpec(container=Container("example/image:1"))
    script = f"echo 'Error: attaching to container 12ab: no space left on device' >&2; exit {code}"
    step = BashStep("f", stderr=("err", "w"))
    with pytest.raises(ContainerError, match=rf"podman failed at .*exit code {code} is its own(.|\n)*no space left"):
        execute(lambda: script, (), {}, spec, (step,), NodeContext(main_thread=True))
    assert podman.read_text().splitlines()[-1].startswith("rm --force --ignore --time=1 flow-")


def test_a_command_that_fails_with_a_code_of_runtimes_is_not_taken_for_one(podman: Path) -> None:
    spec = TaskSpec(container=Container("example/image:1"))
    step = BashStep("f", stderr=("err", "w"))
    with pytest.raises(BashExitFailure, match="exit code 127") as raised:
        execute(lambda: "no-such-command; exit 127", (), {}, spec, (step,), NodeContext(main_thread=True))
    assert not isinstance(raised.value, ContainerError)


def test_an_image_with_another_python_is_refused_by_both_versions(podman: Path, tmp_path: Path) -> None:
    other = tmp_path / "bin" / "python0"
    other.write_text('#!/bin/bash\necho "$3 python 3.4"\n')
    other.chmod(0o755)
    spec = TaskSpec(container=Container("example/image:1", python="python0"))
    with pytest.raises(ContainerError, match=r"has Python 3\.4 and node .* Python 3\."):
        execute(lambda: 1, (), {}, spec, (), NodeContext(main_thread=True))


def test_an_image_without_python_is_told_by_what_was_looked_for(podman: Path) -> None:
    spec = TaskSpec(container=Container("example/image:1", python="python-that-is-nowhere"))
    with pytest.raises(ContainerError, match=r"has no Python.*python-that-is-nowhere is not on its PATH"):
        execute(lambda: 1, (), {}, spec, (), NodeContext(main_thread=True))


def test_a_container_that_ends_before_its_task_is_an_error_with_its_exit_code(podman: Path) -> None:
    def die() -> None:
        import os

        os._exit(9)

    spec = TaskSpec(container=Container("example/image:1"))
    with pytest.raises(ContainerError, match="ended with exit code 9 before its task did") as raised:
        execute(die, (), {}, spec, (), NodeContext(main_thread=True))
    assert pickle.loads(pickle.dumps(raised.value)).exitcode == 9


def test_a_function_whose_container_was_killed_has_run_out_of_memory(podman: Path) -> None:
    def die() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    spec = TaskSpec(Resources(memory_mb=64), container=Container("example/image:1"))
    with pytest.raises(ContainerError, match="needs more than its memory, here 64 MiB") as raised:
        execute(die, (), {}, spec, (), NodeContext(main_thread=True))
    assert ran_out_of(raised.value) == "memory"


class Told:
    """Reports files as a worker does: it has a lock, so it never leaves its process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.names: list[str] = []

    def tell(self, files: Sequence[FileProgress]) -> None:
        with self.lock:
            self.names += [file.url for file in files]


class BringingStep:
    """Stands for staging: it reports a file around the function."""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        assert where.tell is not None
        where.tell([FileProgress("http://host/file", "in", 1, 2)])
        return inner()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("steps", [(BringingStep(),), (BringingStep(), BashStep("f"))])
def test_files_are_told_of_around_a_container_by_what_cannot_leave_the_process(
    podman: Path, keep: bool, steps: tuple[TaskStep, ...]
) -> None:
    told = Told()
    spec = TaskSpec(container=Container("example/image:1", keep=keep), walltime_s=60, environment=(("A", "b"),))
    where = NodeContext(main_thread=True, tell=told.tell)
    assert execute(lambda file: "true", (File("in.txt"),), {}, spec, steps, where) in ("true", 0)
    assert told.names == ["http://host/file"]


def test_files_of_arguments_are_bound_wherever_in_them_they_are(podman: Path, tmp_path: Path) -> None:
    other = tmp_path.parent / f"{tmp_path.name}-data"
    other.mkdir()
    spec = TaskSpec(container=Container("example/image:1"))
    arguments = ({"a": [File(str(other / "x"))]},)
    execute(lambda given: "true", arguments, {}, spec, (BashStep("f"),), NodeContext(main_thread=True))
    assert f"--volume={other}:{other}" in podman.read_text()


def test_the_image_counts_in_the_key_by_its_content(podman: Path, tmp_path: Path) -> None:
    named = image_identity.described(Container("example/image:1"))
    assert "sha256:1234" in named
    assert image_identity.described(Container("example/image:1", keep=True)) == named
    image = tmp_path / "image.sif"
    image.write_bytes(b"one")
    before = image_identity.described(Container(str(image)))
    image.write_bytes(b"two")
    image_identity._known.clear()
    assert image_identity.described(Container(str(image))) != before


def test_a_container_may_be_given_by_its_name() -> None:
    @flow.bash_app
    def shell() -> str:
        return "true"

    assert shell.options(container="example/image:1")._options.spec.container == Container("example/image:1")


def test_what_has_no_removal_needs_no_guard() -> None:
    guarded = Guarded()
    guarded.begin("name", ())
    assert guarded._connection is None
