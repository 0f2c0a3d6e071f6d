"""The shell code that starts a manager in a container, run by bash with stand-ins for the runtimes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flow_core.errors import ConfigurationError
from flow_core.interfaces.container import Container
from flow_core.remote.container_runtimes import DEVICES
from flow_executors.htex import HighThroughputExecutor
from flow_executors.launching.container_launch import ContainerPlan, container_code
from flow_executors.launching.launch_line import PythonSearch, candidates, search_code
from flow_executors.testing.local_run import wait_until

STAND_IN = """#!{python}
import json, os, signal, sys, time
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
if words[:1] in (["image"], ["pull"]):
    print("pulling")
    print("no such image, surely", file=sys.stderr)
    sys.exit(int(os.environ.get("ABSENT", "0")))
if words[:1] == ["--help"]:
    print("  -W, --write-fake   overlay")
    sys.exit(0)
if words[:1] == ["rm"]:
    sys.exit(0)
if os.environ.get("STAYS"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    open(os.environ["STAYS"], "w").close()
    time.sleep(50)
seen = {{word[6:]: os.environ.get(word[6:]) for word in words if word.startswith("--env=")}}
with open(os.environ["CALLS"] + ".seen", "w") as file:
    json.dump([seen, dict(os.environ)], file)
os.execvp("bash", words[words.index("bash"):])
"""


class Node:
    """A node with stand-ins for runtimes, which run the command on the node itself."""

    def __init__(self, directory: Path, *programs: str) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.calls_file = directory / "calls"
        # Nothing else: this machine may have runtimes.
        for program in ("bash", "dirname", "grep", "id", "mkdir", "sleep", "uname"):
            (self.bin / program).symlink_to(str(shutil.which(program)))
        for program in programs:
            self.add(program)

    def add(self, program: str) -> None:
        path = self.bin / program
        path.write_text(STAND_IN.format(python=sys.executable))
        path.chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {"PATH": str(self.bin), "CALLS": str(self.calls_file), "FLOW_CACHE": str(self.directory / "cache")}
        return kept | variables

    def run(self, plan: ContainerPlan, inner: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", container_code(plan, inner)],
            env=self.environment(**variables),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def started(self) -> list[str]:
        return next(call for call in self.calls() if "bash" in call)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, "docker", "apptainer", "ch-run", "shifter", "shifterimg")


def test_the_first_runtime_that_the_node_has_runs_the_code_and_its_exit_code_is_handed_on(node: Node) -> None:
    plan = ContainerPlan(Container({"podman": "a:1", "docker": "b:1"}), name="flow-x")
    done = node.run(plan, "echo 'it''s' \"$0\"\nexit 9")
    assert (done.returncode, done.stdout) == (9, "its flow\n")
    line = node.started()
    assert line[:2] == ["docker", "run"]
    assert line[-5:-3] == ["b:1", "bash"]
    name = next(word for word in line if word.startswith("--name=flow-x-"))
    assert ["docker", "rm", "--force", name.removeprefix("--name=")] in node.calls()


def test_a_node_without_any_of_the_runtimes_names_them(node: Node) -> None:
    done = node.run(ContainerPlan(Container({"podman": "a", "singularity": "b.sif"})), "true")
    assert done.returncode == 127
    assert "no manager can start in a container on node" in done.stderr
    assert "there is none of podman, singularity" in done.stderr
    done = node.run(ContainerPlan(Container("a", "podman")), "true")
    assert done.returncode == 127
    assert "there is no podman" in done.stderr


def test_paths_of_flow_are_bound_once_and_where_they_are_there_and_never_over_the_images_system(node: Node) -> None:
    here = str(node.directory)
    for one in ("run", "code", "made by hand"):
        (node.directory / one).mkdir()
    plan = ContainerPlan(
        Container("a", "docker"),
        shared=[f"{here}/run", f"{here}/nowhere", "/usr/lib", "/"],
        read=[f"{here}/code", here, f"{here}/run"],
        made=[f"{here}/made/deep"],
    )
    assert node.run(plan, "true").returncode == 0
    volumes = [word.removeprefix("--volume=") for word in node.started() if word.startswith("--volume=")]
    assert volumes == [
        *(f"{here}/{name}:{here}/{name}" for name in ("made/deep", "run")),
        f"{here}:{here}",
        f"{here}/cache:{here}/cache",
        f"{here}/code:{here}/code:ro",
    ]
    assert f"--workdir={here}" in node.started()


def test_binds_of_the_user_are_given_as_they_are_written_and_must_be_there(node: Node) -> None:
    here = str(node.directory)
    assert node.run(ContainerPlan(Container("a", "docker", binds=[f"{here}:/in:ro"])), "true").returncode == 0
    assert f"--volume={here}:/in:ro" in node.started()
    done = node.run(ContainerPlan(Container("a", "docker", binds=["/not/here"])), "true")
    assert done.returncode == 127
    assert "/not/here of binds= is not there" in done.stderr


def test_a_path_that_no_runtime_can_name_is_refused_by_name(node: Node) -> None:
    odd = node.directory / "a:b"
    odd.mkdir()
    done = node.run(ContainerPlan(Container("a", "docker"), shared=[str(odd)]), "true")
    assert done.returncode == 127
    assert f"{odd} cannot be bound: its name has a colon or a comma" in done.stderr


def test_secrets_files_and_sockets_of_the_job_are_bound(node: Node) -> None:
    for one in ("keys/key", "files/archive"):
        (node.directory / one).parent.mkdir()
        (node.directory / one).touch()
    (node.directory / "sockets").mkdir()
    here = str(node.directory)
    done = node.run(
        ContainerPlan(Container("a", "docker")),
        "true",
        FLOW_SECRET_FLOW_BLOCK_KEY=f"{here}/keys/key",
        FLOW_FILE_X=f"{here}/files/archive",
        FLOW_FORWARDS=f"unix:{here}/sockets/one 127.0.0.1:99",
    )
    assert done.returncode == 0
    for one in ("keys", "files", "sockets"):
        assert f"--volume={here}/{one}:{here}/{one}" in node.started()


def test_variables_of_flow_and_the_scheduler_are_handed_on_by_name_and_those_of_the_node_are_not(node: Node) -> None:
    given = {"FLOW_BLOCK_MANAGERS": "two words", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}
    kept = {"FLOW_PYTHON": "/usr/bin/x", "PYTHONPATH": "/x", "HOME": "/h", "LD_PRELOAD": ""}
    node.run(ContainerPlan(Container("a:1", "docker")), "true", **given, **kept)
    seen, _ = json.loads(Path(f"{node.calls_file}.seen").read_text())
    assert seen == {**given, "FLOW_CACHE": str(node.directory / "cache"), "FLOW_IMAGE": "a:1"}


def test_a_runtime_that_hands_on_the_whole_environment_gets_none_that_belongs_to_the_nodes_python(node: Node) -> None:
    image = node.directory / "x.sif"
    image.touch()
    done = node.run(
        ContainerPlan(Container(str(image), "apptainer")), "true", FLOW_PYTHON="p", PYTHONPATH="/x", SLURM_JOB_ID="7"
    )
    assert done.returncode == 0
    _, environment = json.loads(Path(f"{node.calls_file}.seen").read_text())
    assert environment["SLURM_JOB_ID"] == "7"
    assert {"FLOW_PYTHON", "PYTHONPATH", "VIRTUAL_ENV"}.isdisjoint(environment)


def test_an_image_that_cannot_be_had_is_named_with_what_the_runtime_says(node: Node) -> None:
    node.add("podman")
    done = node.run(ContainerPlan(Container("a/b:1", "podman")), "true", ABSENT="1")
    assert done.returncode == 127
    assert "podman has no image a/b:1 there, and cannot bring it: no such image, surely" in done.stderr
    done = node.run(ContainerPlan(Container("/no/x.sif", "apptainer")), "true")
    assert done.returncode == 127
    assert "apptainer has no image /no/x.sif there, and cannot bring it: it is not there" in done.stderr


def test_an_image_that_is_there_is_not_brought(node: Node) -> None:
    node.add("podman")
    assert node.run(ContainerPlan(Container("a:1", "podman")), "true").returncode == 0
    assert [call[1] for call in node.calls()] == ["image", "run", "rm"]


@pytest.mark.parametrize(
    ("kind", "words"), [("nvidia", ["--gpus=all"]), ("amd", ["--device=/dev/kfd", "--device=/dev/dri"])]
)
def test_a_pool_with_accelerators_gives_its_container_those_that_the_node_has(
    node: Node, kind: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in DEVICES:
        monkeypatch.setitem(DEVICES, one, str(node.directory / one))  # type: ignore[index]  # a dict
    (node.directory / kind).touch()
    node.run(ContainerPlan(Container("a", "docker"), gpus=True), "true")
    assert set(words) <= set(node.started())


def test_a_pool_without_accelerators_gives_its_container_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICES, "nvidia", "/dev/null")  # type: ignore[index]  # a dict
    node.run(ContainerPlan(Container("a", "docker")), "true")
    assert "--gpus=all" not in node.started()


def test_the_users_own_options_come_last_and_words_are_not_parted(node: Node) -> None:
    node.run(ContainerPlan(Container("a", "docker", options=["--label=it's one word", "--ipc=host"])), "true")
    line = node.started()
    at = line.index("--label=it's one word")
    assert line[at : at + 4] == ["--label=it's one word", "--ipc=host", "a", "bash"]


def test_shifter_and_charliecloud_get_their_own_words(node: Node) -> None:
    image = node.directory / "image"
    image.mkdir()
    assert node.run(ContainerPlan(Container("x:1", "shifter")), "true").returncode == 0
    assert "--image=docker:x:1" in node.started()
    node.calls_file.unlink()
    assert node.run(ContainerPlan(Container(str(image), "charliecloud")), "true").returncode == 0
    line = node.calls()[-1]
    assert (line[0], line[2]) == ("ch-run", "--write-fake")
    assert line[-6:-3] == [str(image), "--", "bash"]


def test_a_container_is_ended_in_order_and_removed_when_its_job_is_told_to_end(node: Node) -> None:
    stays = node.directory / "stays"
    job = subprocess.Popen(
        ["bash", "-c", container_code(ContainerPlan(Container("a", "docker")), "true")],
        env=node.environment(STAYS=str(stays)),
        cwd=node.directory,
    )
    try:
        wait_until(stays.exists, "it did not start")
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=30) == 7
    finally:
        job.kill()
        job.wait()
    assert node.calls()[-1][:3] == ["docker", "rm", "--force"]


def test_what_the_runtime_could_not_run_is_told_last(node: Node) -> None:
    done = node.run(ContainerPlan(Container("a", "docker")), "exit 126")
    assert done.returncode == 126
    assert done.stderr.splitlines()[-1].startswith("flow: docker ran no manager in image a (exit code 126)")


def test_an_image_without_python_is_named_with_cures_for_images() -> None:
    search = PythonSearch("3.11", candidates("/no/python", ""), named=True, in_image=True)
    done = subprocess.run(
        ["bash", "-c", search_code(search)],
        env={"FLOW_IMAGE": "a:1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    assert "no manager can start in image a:1 on node" in done.stderr
    assert "make an image with Python 3.11" in done.stderr
    assert "worker_init" not in done.stderr


def test_the_code_raises_no_eyebrow_of_shellcheck() -> None:
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("shellcheck is not installed")
    code = container_code(
        ContainerPlan(Container("a", binds=["/x:/y:ro"], options=["-q"]), made=["/m"], shared=["/s"], gpus=True), "true"
    )
    done = subprocess.run(
        # Functions that one runtime needs are defined for all of them; unreachable is what a trap calls.
        [program, "-s", "bash", "-e", "SC2317,SC2329", "-"],
        input=code,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout


def test_a_text_is_the_image_of_a_pool_and_two_pythons_of_it_are_refused() -> None:
    assert HighThroughputExecutor(container="python:3.12").container == Container("python:3.12")
    with pytest.raises(ConfigurationError, match="both name the Python of the image"):
        HighThroughputExecutor(container=Container("x", python="/a"), python="/b")
    with pytest.raises(ConfigurationError, match="container=7"):
        HighThroughputExecutor(container=7)  # type: ignore[arg-type]  # that is the test
