"""The record of a container, and the command lines that runtimes get of it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError
from flow_core.interfaces.container import RUNTIMES, Bind, Container
from flow_core.remote.container_runtimes import (
    DEVICES,
    TABLE,
    argv,
    fetching,
    identity,
    image_of,
    presence,
    removal,
)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"image": ""}, "image must be the name, path or URL"),
        ({"image": "--privileged"}, "image must be the name"),
        ({"image": "two words"}, "image must be the name"),
        ({"image": "~/x.sif"}, "write the path out"),
        ({"image": 3}, "image must be the name"),
        ({"image": {}}, "names no image"),
        ({"image": {"dock": "x"}}, "runtime 'dock' is unknown"),
        ({"image": {"docker": "x"}, "runtime": "docker"}, "beside images by runtime"),
        ({"image": "x", "runtime": "dock"}, "give one of podman, docker, apptainer"),
        ({"image": "x.sif", "runtime": "docker"}, "docker cannot run 'x.sif': apptainer and singularity"),
        ({"image": "library://x", "runtime": "podman"}, "podman cannot run"),
        ({"image": "x", "binds": "/data"}, "binds must be a list"),
        ({"image": "x", "binds": ["data"]}, "binds='data' is none"),
        ({"image": "x", "binds": ["/a:b"]}, "binds='/a:b' is none"),
        ({"image": "x", "binds": ["/a:/b:rx"]}, "binds='/a:/b:rx' is none"),
        ({"image": "x", "binds": ["/a,b"]}, "no comma"),
        ({"image": "x", "options": "--gpus=all"}, "options must be a list"),
        ({"image": "x", "options": {"dock": []}}, "runtime 'dock' is unknown"),
        ({"image": {"docker": "x"}, "options": {"podman": []}}, "options are given for 'podman', which never runs it"),
        ({"image": "x", "python": " "}, "python must be a command"),
    ],
)
def test_what_can_never_work_is_refused_where_the_container_is_made(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Container(**given)


def test_equal_containers_have_one_hash_and_survive_pickling() -> None:
    first = Container(
        {"docker": "x:1", "apptainer": "/x.sif"}, binds=["/data:/in:ro"], options={"docker": ["--ipc=host"]}
    )
    again = pickle.loads(pickle.dumps(first))
    assert again == first
    assert hash(again) == hash(first)
    assert first != Container("x:1")


@pytest.mark.parametrize(
    "text",
    [
        "Container('python:3.12')",
        "Container('/x.sif', runtime='apptainer', binds=['/d:/in:ro', '/y'], options=['--nv'], python='python3')",
        "Container({'docker': 'x:1', 'apptainer': '/x.sif'}, options={'docker': ['--ipc=host']})",
    ],
)
def test_a_container_shows_itself_as_it_is_written(text: str) -> None:
    assert repr(eval(text, {"Container": Container})) == text


def test_a_path_is_an_image_too() -> None:
    assert Container(Path("/x.sif")).images == (("auto", "/x.sif"),)  # type: ignore[arg-type]  # taken all the same


def test_runtimes_that_can_run_an_image_follow_from_its_form() -> None:
    assert [name for name, _ in Container("python:3.12").candidates()] == list(RUNTIMES)
    assert [name for name, _ in Container("docker://python:3.12").candidates()] == list(RUNTIMES)
    assert [name for name, _ in Container("x.sif").candidates()] == ["apptainer", "singularity", "charliecloud"]
    assert [name for name, _ in Container("oras://x").candidates()] == ["apptainer", "singularity"]
    assert Container({"docker": "x", "podman": "y"}).candidates() == (("docker", "x"), ("podman", "y"))


def test_options_of_one_runtime_are_not_those_of_another() -> None:
    by_runtime = Container("x", options={"docker": ["--ipc=host"]})
    assert by_runtime.options_for("docker") == ("--ipc=host",)
    assert by_runtime.options_for("podman") == ()
    assert Container("x", options=["-q"]).options_for("podman") == ("-q",)


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        ("podman", "python:3"),
        ("docker", "python:3"),
        ("apptainer", "docker://python:3"),
        ("singularity", "docker://python:3"),
        ("shifter", "docker:python:3"),
        ("charliecloud", "python:3"),
    ],
)
def test_a_registrys_image_is_written_as_each_runtime_wants_it(runtime: str, name: str) -> None:
    assert image_of(runtime, "python:3") == image_of(runtime, "docker://python:3") == name
    assert image_of(runtime, "/x.sif") == "/x.sif"


BINDS = [Bind("/a", "/a"), Bind("/b", "/c", read_only=True)]


def test_podman_and_docker_get_binds_variables_and_limits_before_the_image_and_the_command_after_it() -> None:
    for runtime in ("podman", "docker"):
        line = argv(
            runtime,
            "x",
            ["echo", "{image}"],
            binds=BINDS,
            variables=["FLOW_KEY"],
            name="flow-1",
            options=["--ipc=host"],
            directory="/a",
            user=(1, 2),
            stdin=True,
            memory_mib=100,
            cores=0.5,
        )
        assert line[:2] == [runtime, "run"]
        assert line[-4:] == ["--ipc=host", "x", "echo", "{image}"]
        assert {
            "--volume=/a:/a",
            "--volume=/b:/c:ro",
            "--env=FLOW_KEY",
            "--name=flow-1",
            "--workdir=/a",
            "--user=1:2",
            "--interactive",
            "--memory=100m",
            "--cpus=0.5",
            "--init",
            "--rm",
        } <= set(line[2:-4])


def test_apptainer_and_singularity_hand_on_the_environment_and_need_no_name() -> None:
    for runtime in ("apptainer", "singularity"):
        line = argv(runtime, "/x.sif", ["id"], binds=BINDS, variables=["FLOW_KEY"], name="flow-1", directory="/a")
        assert line == [runtime, "--silent", "exec", "--bind=/a:/a", "--bind=/b:/c:ro", "--pwd=/a", "/x.sif", "id"]


def test_shifter_names_its_image_by_an_option() -> None:
    line = argv("shifter", "x:1", ["id"], binds=BINDS, gpus="nvidia")
    assert line == ["shifter", "--volume=/a:/a", "--volume=/b:/c:ro", "--module=gpu", "--image=docker:x:1", "id"]


def test_charliecloud_parts_image_and_command_and_has_the_image_path() -> None:
    line = argv("charliecloud", "/img", ["id"], binds=BINDS, directory="/a")
    assert line[0] == "ch-run"
    assert line[1].startswith("--set-env=PATH=/usr/local/sbin:")
    assert line[2:] == ["--bind=/a:/a", "--bind=/b:/c", "--cd=/a", "/img", "--", "id"]


def test_every_runtime_has_words_for_every_kind_of_accelerator() -> None:
    assert tuple(TABLE) == RUNTIMES
    for words in TABLE.values():
        assert set(words.gpus) == set(DEVICES)
    assert "--nv" in argv("apptainer", "/x.sif", ["id"], gpus="nvidia")
    assert "--gpus=all" in argv("docker", "x", ["id"], gpus="nvidia")


def test_containers_that_outlive_their_clients_are_removed_by_name() -> None:
    assert removal("podman", "flow-1") == ["podman", "rm", "--force", "--ignore", "--time=1", "flow-1"]
    assert removal("docker", "flow-1") == ["docker", "rm", "--force", "flow-1"]
    assert removal("apptainer", "flow-1") == removal("charliecloud", "flow-1") == []


def test_an_image_is_looked_for_and_identified_under_the_runtimes_own_name_of_it() -> None:
    assert presence("podman", "docker://x") == ["podman", "image", "exists", "x"]
    assert fetching("docker", "x") == ["docker", "pull", "--quiet", "x"]
    assert identity("docker", "x") == ["docker", "image", "inspect", "--format={{.Id}}", "x"]
    assert presence("apptainer", "/x.sif") == fetching("charliecloud", "/img") == []
