"""How managers come up on nodes: the search for a Python, what is brought there, and who may ask for it."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import subprocess
import sys
import tarfile
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, strategies as st

from flow_core.errors import ConfigurationError
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_executors.common.code_digest import code_digest
from flow_executors.common.run_marker import make_marker
from flow_executors.common.versions import differences, other_code, own_code, version_of
from flow_executors.errors import ExecutorError
from flow_executors.launching.file_server import FileServer
from flow_executors.launching.launch_line import PythonSearch, candidates, delivered, search_code
from flow_executors.launching.node_bundle import Archive, Platform, platform_of, runtime_archive, serves, this_platform
from flow_executors.launching.node_python import PYTHON, path_code, with_pool_name
from flow_executors.launching.packed_environment import is_lock, locked_packages
from flow_executors.wire.auth import BlockSecret, KeyPair, make_pair

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
UID = str(os.geteuid())
LOG = logging.getLogger("test")


# -- the search for a Python


def fake_python(path: Path, says: str) -> Path:
    """Make a command that answers the probe with a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def run(
    search: PythonSearch, environment: dict[str, str], command: str = f"echo {PYTHON}"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{search_code(search)}\n{command}"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_the_first_python_with_flow_is_taken(tmp_path: Path) -> None:
    bare = fake_python(tmp_path / "one/python3", f"bare {MINOR} No module named zmq")
    good = fake_python(tmp_path / "one/python", f"flow {MINOR} - 0")
    told = run(PythonSearch(MINOR, candidates(None, "")), {"PATH": f"{bare.parent}:{os.environ['PATH']}"})
    assert told.stdout.strip() == str(good)


def differing(tmp_path: Path) -> dict[str, str]:
    """Put two Pythons on a PATH: the first has another Flow, the second the script's."""
    (tmp_path / "away").write_bytes(b"")
    for name, code in (("python3", "0123"), ("python", own_code())):
        place = fake_python(tmp_path / "one" / name, f"flow {MINOR} {code} 0.1.1")
        place.write_text(
            f"#!/bin/sh\ncase $2 in *'import zmq'*) echo flow {MINOR} {code} 0.1.1 ;; "
            f'*) [ ! -e {tmp_path}/fails ] || exit 1; [ -n "$2" ] && echo /brought ;; esac\n'
        )
    return {"PATH": f"{tmp_path}/one:/usr/bin:/bin"}


SHOWN = f"echo {PYTHON} $PYTHONPATH; echo $FLOW_LEFT_ASIDE"


def test_a_python_with_the_scripts_own_flow_comes_before_one_with_another(tmp_path: Path) -> None:
    search = PythonSearch(MINOR, candidates(None, ""), runtime=Archive(tmp_path / "away", "0" * 64, this_platform()))
    told = run(search, differing(tmp_path), f"echo {PYTHON} ${{PYTHONPATH:-}} ${{FLOW_LEFT_ASIDE:-}}")
    assert told.stdout.split() == [str(tmp_path / "one/python")]


def test_to_a_node_with_another_flow_alone_the_scripts_is_brought_and_it_says_so(tmp_path: Path) -> None:
    search = PythonSearch(MINOR, ("python3",), runtime=Archive(tmp_path / "away", "0" * 64, this_platform()))
    told = run(search, differing(tmp_path), SHOWN)
    python = tmp_path / "one/python3"
    assert told.stdout.splitlines() == [f"{python} /brought", f"Flow 0.1.1 of {python}"], told.stderr


def test_another_flow_is_run_where_the_scripts_cannot_be_brought(tmp_path: Path) -> None:
    search = PythonSearch(MINOR, ("python3",), runtime=Archive(tmp_path / "away", "0" * 64, this_platform()))
    (tmp_path / "fails").touch()
    told = run(search, differing(tmp_path), f"echo {PYTHON} ${{PYTHONPATH:-}} ${{FLOW_LEFT_ASIDE:-}}")
    assert told.stdout.split() == [str(tmp_path / "one/python3")], told.stderr
    assert "is other code than the script's" in told.stderr


def test_where_nothing_is_to_be_brought_the_first_flow_is_taken(tmp_path: Path) -> None:
    told = run(PythonSearch(MINOR, candidates(None, ""), refused=True), differing(tmp_path))
    assert told.stdout.split() == [str(tmp_path / "one/python3")]


def test_the_probe_finds_the_digest_of_the_scripts_own_flow(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "away", "0" * 64, this_platform())
    told = run(PythonSearch(MINOR, (sys.executable,), runtime=archive), {"HOME": str(tmp_path)})
    assert told.stdout.strip() == sys.executable, told.stderr


def test_a_digest_is_of_names_and_contents_of_modules_without_tests(tmp_path: Path) -> None:
    def digest(name: str, **modules: str) -> str:
        top = tmp_path / name
        for path, text in modules.items():
            place = top / f"{path.replace('_in_', '/')}.py"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        spec = ModuleSpec("mine", None, is_package=True)
        assert spec.submodule_search_locations is not None
        spec.submodule_search_locations.append(str(top))
        package = ModuleType("mine")
        package.__spec__ = spec
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "mine", package)
            return code_digest("mine")

    base = digest("a", one="x", two="y")
    assert base == digest("b", one="x", two="y", testing_in_three="z", __pycache___in_four="z")
    assert base not in {digest("c", one="x", two="z"), digest("d", one="xy", two=""), digest("e", one="x", three="y")}
    assert digest("f") == ""


def test_the_variable_of_the_node_comes_before_its_path(tmp_path: Path) -> None:
    fake_python(tmp_path / "one/python3", f"flow {MINOR} - 0")
    mine = fake_python(tmp_path / "mine", f"flow {MINOR} - 0")
    told = run(
        PythonSearch(MINOR, candidates(None, "")), {"PATH": f"{tmp_path}/one:/usr/bin:/bin", "FLOW_PYTHON": str(mine)}
    )
    assert told.stdout.strip() == str(mine)


def test_the_option_is_the_only_one_tried(tmp_path: Path) -> None:
    fake_python(tmp_path / "one/python3", f"flow {MINOR} - 0")
    told = run(PythonSearch(MINOR, candidates("/no/python", "")), {"PATH": f"{tmp_path}/one:/usr/bin:/bin"})
    assert told.returncode == 127
    assert "/no/python: not there" in told.stderr


def test_an_error_names_the_node_what_was_tried_and_the_cures(tmp_path: Path) -> None:
    fake_python(tmp_path / "one/python3", "bare 2.7 no")
    broken = fake_python(tmp_path / "one/python", "Segmentation fault")
    told = run(PythonSearch(MINOR, candidates(None, "")), {"PATH": f"{broken.parent}:/usr/bin:/bin"})
    assert told.returncode == 127
    assert os.uname().nodename in told.stderr
    for words in (
        f"Python 2.7, and the script runs {MINOR}",
        "Segmentation fault",
        "worker_init",
        "python=",
        "environment=",
    ):
        assert words in told.stderr, told.stderr


def test_cures_begin_with_what_the_user_can_change_in_the_script(tmp_path: Path) -> None:
    named = run(PythonSearch(MINOR, ("/no/python",), named=True, refused=True), {"PATH": "/usr/bin:/bin"}).stderr
    assert "Cures: correct python=, or leave it out" in named
    refused = run(PythonSearch(MINOR, ("/no/python",), refused=True), {"PATH": "/usr/bin:/bin"}).stderr
    assert "Cures: have Flow sent to the node with bootstrap='auto'" in refused
    neither = run(PythonSearch(MINOR, ("/no/python",)), {"PATH": "/usr/bin:/bin"}).stderr
    assert "bootstrap" not in neither


def test_the_scripts_own_python_is_tried_only_where_files_are_shared() -> None:
    assert candidates(None, sys.executable)[0] == sys.executable
    assert sys.executable not in candidates(None, "")


def path_with(code: str, before: dict[str, str]) -> str:
    show = f'set -eu\n{code}\necho "${{PYTHONPATH:-}}"'
    env = {"PATH": os.environ["PATH"], **before}
    told = subprocess.run(["bash", "-c", show], env=env, capture_output=True, text=True, timeout=50, check=True)
    assert told.stderr == ""
    return told.stdout.strip()


@pytest.mark.parametrize(("before", "rest"), [({}, ""), ({"PYTHONPATH": "/site"}, "/site")])
def test_the_scripts_directories_are_on_the_path_only_where_the_run_is_seen(
    tmp_path: Path, before: dict[str, str], rest: str
) -> None:
    marker = make_marker(tmp_path)
    code = path_code("/my own/code", marker.path, marker.sha256)
    assert path_with(code, before) == ":".join(filter(None, ("/my own/code", rest)))
    marker.remove()
    assert path_with(code, before) == rest


@pytest.mark.parametrize("kind", ["file", "link", "pipe", "directory"])
def test_a_path_that_another_user_has_made_is_not_taken_for_the_scripts(tmp_path: Path, kind: str) -> None:
    marker = make_marker(tmp_path)
    code = path_code("/my own/code", marker.path, marker.sha256)
    place = Path(marker.path)
    place.unlink()
    if kind == "file":
        place.write_bytes(b"x" * 32)
    elif kind == "link":
        place.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    assert path_with(code, {}) == ""


def test_the_name_of_the_worker_pool_means_the_module_of_the_manager() -> None:
    given_ = "process_worker_pool.py {debug} -c {cores_per_worker} --task_url={task_url} --result_url={result_url}"
    assert with_pool_name(given_).startswith("{python} -P -m {module} {debug} -c")
    assert with_pool_name("/opt/my/process_worker_pool.py {debug}") == "/opt/my/process_worker_pool.py {debug}"


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
def test_impossible_options_are_refused(kind: type[HighThroughputExecutor], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bootstrap must be 'auto'"):
        kind(bootstrap="always")
    with pytest.raises(ConfigurationError, match="cannot be sent to nodes"):
        kind(environment=str(tmp_path / "none.tar.gz"))
    (tmp_path / "text").write_text("no tar")
    with pytest.raises(ConfigurationError, match="neither a tar file"):
        kind(environment=str(tmp_path / "text"))


# -- what is brought


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return runtime_archive(tmp_path_factory.mktemp("cache"))


def test_what_is_brought_is_flow_and_what_a_manager_imports(runtime: Archive) -> None:
    with tarfile.open(runtime.path) as archive:
        names = set(archive.getnames())
    for name in (
        "flow_core/__init__.py",
        "flow_executors/manager/__main__.py",
        "zmq/__init__.py",
        "cloudpickle/__init__.py",
    ):
        assert name in names
    assert any(name.startswith("psutil/") and name.endswith(".so") for name in names)
    assert not any("__pycache__" in name or "/tests/" in name for name in names)
    assert runtime.path.stat().st_size < 4_000_000


def test_a_manager_comes_up_with_nothing_but_what_is_brought(runtime: Archive, tmp_path: Path) -> None:
    told = run(
        PythonSearch(MINOR, (sys.executable,), runtime=runtime, always=True),
        {"FLOW_CACHE": str(tmp_path / "cache"), **dict(variables(runtime))},
        f'{PYTHON} -I -c \'import os, sys; sys.path[:] = [p for p in sys.path if "site-packages" not in p]; '
        'sys.path.insert(0, os.environ["FLOW_RUNTIME_PATH"]); import flow_executors.manager.start as s, '
        "flow_executors.direct.manager, flow_executors.worker.loop; print(s.__file__)'",
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(str(tmp_path / "cache" / UID / "runtime"))


def variables(*archives: Archive) -> list[tuple[str, str]]:
    from flow_executors.launching.launch_line import _variable

    return [(_variable(one), str(one.path)) for one in archives]


def test_what_was_brought_is_used_again_and_what_is_old_is_removed(runtime: Archive, tmp_path: Path) -> None:
    search = PythonSearch(MINOR, (sys.executable,), runtime=runtime, always=True)
    environment = {"FLOW_CACHE": str(tmp_path)}
    (old := tmp_path / UID / "runtime" / "old").mkdir(parents=True)
    os.utime(old, (0, 0))
    first = run(search, {**environment, **dict(variables(runtime))}, 'echo "$FLOW_RUNTIME_PATH"')
    assert first.returncode == 0, first.stderr
    assert not old.exists()
    again = run(search, environment, 'echo "$FLOW_RUNTIME_PATH"')  # without the file
    assert again.stdout == first.stdout


def test_a_damaged_file_is_not_unpacked(runtime: Archive, tmp_path: Path) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(b"other")
    name = variables(runtime)[0][0]
    search = PythonSearch(MINOR, (sys.executable,), runtime=runtime, always=True)
    told = run(search, {"FLOW_CACHE": str(tmp_path / "cache"), name: str(tmp_path / "bad.tar.gz")})
    assert told.returncode == 127
    assert "is not what was sent" in told.stderr


def test_a_packed_environment_is_unpacked_and_its_python_taken(
    runtime: Archive, tools_of_node: Path, tmp_path: Path
) -> None:
    fake_python(tmp_path / "env/bin/python", f"flow {MINOR} - 0")
    with tarfile.open(tmp_path / "env.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "env/bin", "bin")
    archive = Archive(tmp_path / "env.tar.gz", "0" * 64, None)
    search = PythonSearch(MINOR, (), environment=replace(archive, sha256=sha256_of(archive.path)))
    environment = {"FLOW_CACHE": str(tmp_path / "cache"), **dict(variables(search.environment))}  # type: ignore[arg-type]
    told = run(search, environment)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(str(tmp_path / "cache" / UID / "environment"))
    # a node without any Python
    environment |= {"PATH": str(tools_of_node), "FLOW_CACHE": str(tmp_path / "cache2")}
    told = run(search, environment)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(str(tmp_path / "cache2" / UID / "environment"))


def sha256_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@given(st.integers(0, 60), st.integers(0, 60))
def test_what_needs_a_lower_libc_runs_on_a_higher(needed: int, there: int) -> None:
    one = Platform("3.11", "x86_64", "glibc", (2, needed))
    assert serves(one, replace(one, version=(2, there))) == (needed <= there)
    assert not serves(one, Platform("3.11", "aarch64", "glibc", (2, 60)))
    assert not serves(one, Platform("3.11", "x86_64", "musl"))
    assert not serves(one, Platform("3.12", "x86_64", "glibc", (2, 60)))


def test_the_platform_of_a_wheel_is_the_lowest_of_its_tags() -> None:
    here = Platform("3.11", "x86_64", "glibc", (2, 36))
    text = "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_26_x86_64\nTag: cp311-cp311-manylinux_2_28_x86_64\n"
    assert platform_of(text, here) == Platform("3.11", "x86_64", "glibc", (2, 26))
    assert platform_of("Tag: cp36-abi3-manylinux2014_aarch64\n", here) == Platform("3.11", "aarch64", "glibc", (2, 17))
    assert platform_of("Tag: cp311-cp311-musllinux_1_2_x86_64\n", here) == Platform("3.11", "x86_64", "musl")
    several = "Tag: cp311-cp311-manylinux_2_17_x86_64.manylinux_2_24_x86_64\n"
    assert platform_of(several, here) == Platform("3.11", "x86_64", "glibc", (2, 17))
    assert platform_of("Tag: cp311-cp311-macosx_11_0_arm64\n", here) is None


def test_a_wheel_that_was_built_here_needs_a_libc_as_new_as_that_of_this_machine() -> None:
    here = Platform("3.11", "x86_64", "glibc", (2, 36))
    needs = platform_of("Tag: cp311-cp311-linux_x86_64\n", here)
    assert needs == here
    assert serves(needs, here)
    assert not serves(needs, Platform("3.11", "x86_64", "glibc", (2, 31)))


def test_a_platform_that_no_index_serves_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("flow_executors.launching.node_bundle._commands", lambda *_: iter([["/no/pip"]]))
    with pytest.raises(ExecutorError, match=r"pyzmq==.*riscv64|riscv64.*pyzmq=="):
        runtime_archive(tmp_path, Platform(MINOR, "riscv64", "glibc", (2, 36)))


def test_lock_files_are_known_by_their_names() -> None:
    assert is_lock("/x/uv.lock")
    assert is_lock("pylock.toml")
    assert is_lock("pylock.dev.toml")
    assert not is_lock("uv.lock.tar.gz")


def test_equal_files_give_an_equal_archive(runtime: Archive, tmp_path: Path) -> None:
    assert runtime_archive(tmp_path).sha256 == runtime.sha256
    assert runtime_archive(tmp_path).needs == runtime.needs


# -- who may ask for it


def loader(told: dict[str, object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    text = (files("flow_executors.launching") / "node_loader.py").read_text()
    return subprocess.run(
        [sys.executable, "-I", "-c", text, json.dumps(told)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.fixture
def served(runtime: Archive, tmp_path: Path) -> object:
    listener = socket.create_server(("127.0.0.1", 0))
    server = FileServer(listener, lambda name, node: _answer(runtime, name), LOG)
    yield server
    server.close()


def _answer(runtime: Archive, name: str) -> Archive:
    if name != f"runtime-{runtime.sha256}":
        raise ExecutorError(f"there is no {name}")
    return runtime


def question(
    server: FileServer, runtime: Archive, pair: KeyPair, tmp_path: Path, **other: object
) -> tuple[dict[str, object], dict[str, str]]:
    secret = tmp_path / "secret"
    secret.write_bytes(BlockSecret("0", b"s" * 40, pair).to_bytes())
    secret.chmod(stat.S_IRUSR)
    told = {
        "kind": "runtime",
        "sha256": runtime.sha256,
        "needs": this_platform().as_list(),
        "file": "NO_FILE",
        "want": f"runtime-{runtime.sha256}",
        "addresses": ["127.0.0.1"],
        "port": server.port,
        "secret": "SECRET",
    }
    return {**told, **other}, {"SECRET": str(secret), "FLOW_CACHE": str(tmp_path / "cache")}


def test_a_node_with_the_key_of_its_block_gets_it(served: FileServer, runtime: Archive, tmp_path: Path) -> None:
    pair = make_pair()
    served.admit(pair)
    told = loader(*question(served, runtime, pair, tmp_path))
    assert told.returncode == 0, told.stderr
    assert Path(told.stdout.strip(), "flow_core", "__init__.py").exists()


def test_a_stranger_gets_nothing(served: FileServer, runtime: Archive, tmp_path: Path) -> None:
    served.admit(make_pair())
    told = loader(*question(served, runtime, make_pair(), tmp_path))
    assert told.returncode == 1
    assert "the connection broke" in told.stderr
    served.admit(pair := make_pair())
    served.revoke(pair.public)
    assert loader(*question(served, runtime, pair, tmp_path)).returncode == 1


def test_a_node_hears_why_it_gets_nothing(served: FileServer, runtime: Archive, tmp_path: Path) -> None:
    pair = make_pair()
    served.admit(pair)
    told = loader(*question(served, runtime, pair, tmp_path, want="runtime-other"))
    assert told.returncode == 1
    assert "there is no runtime-other" in told.stderr


def test_who_answers_without_the_key_is_not_believed(runtime: Archive, tmp_path: Path) -> None:
    pair = make_pair()
    listener = socket.create_server(("127.0.0.1", 0))
    server = FileServer(listener, lambda name, node: runtime, LOG)
    try:
        server.admit(KeyPair(pair.public, b"x" * 40))
        assert loader(*question(server, runtime, pair, tmp_path)).returncode == 1
    finally:
        server.close()


# -- versions


def test_each_kind_of_software_that_differs_is_named_with_both_versions() -> None:
    told = differences(
        {"Python": "3.11.2", "flow-core": "0.2.0", "cloudpickle": ""},
        {"Python": "3.11.7", "flow-core": "0.2.0", "cloudpickle": "3"},
        "n7",
    )
    assert list(told) == ["Python"]
    assert "n7" in told["Python"]
    assert "3.11.2" in told["Python"]
    assert "3.11.7" in told["Python"]


@pytest.mark.parametrize(("theirs", "said"), [("", "older code"), ("f" * 32, "ffffffff"), ("a" * 32, "")])
def test_other_code_of_the_same_release_is_named_with_the_cure(theirs: str, said: str) -> None:
    text = other_code(theirs, "a" * 32, "0.1.1", "n7")
    assert said in text
    assert bool(text) == bool(said)
    if said:
        assert "node n7" in text
        assert "0.1.1" in text
        assert "bootstrap=True" in text
    assert other_code(theirs, "", "0.1.1", "n7") == ""


def test_a_version_is_read_without_an_import() -> None:
    text = subprocess.run(
        [
            *(sys.executable, "-c"),
            (
                "import sys; from flow_executors.common.versions import version_of; "
                "print(version_of('cloudpickle'), 'cloudpickle' in sys.modules)"
            ),
        ],
        capture_output=True,
        text=True,
        timeout=50,
    ).stdout.split()
    assert text == [version_of("cloudpickle"), "False"]
    assert text[0]


def test_files_that_go_with_a_job_are_named_by_their_content(runtime: Archive) -> None:
    [(name, path)] = delivered(PythonSearch(MINOR, (), runtime=runtime))
    assert runtime.sha256[:32] in name
    assert path == str(runtime.path)


FAKE_UV = """#!/bin/sh
echo "$*" >>"$0.log"
case $1 in
  export) [ -e uv.lock ] && for last; do :; done && echo "mine==1" >"$last" ;;
  pip)
    while [ $# -gt 0 ]; do [ "$1" = --target ] && target=$2; shift; done
    mkdir -p "$target/mine" && echo "VALUE = 3" >"$target/mine/__init__.py"
    [ ! -e "$0.fails" ] || { echo "error: no such version" >&2; exit 2; } ;;
esac
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command ``uv`` that installs one package from nowhere."""
    (tmp_path / "tools").mkdir()
    path = tmp_path / "tools" / "uv"
    path.write_text(FAKE_UV)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml"])
def test_packages_of_a_lock_file_are_added_to_the_nodes_python(uv: Path, name: str, tmp_path: Path) -> None:
    lock = tmp_path / name
    lock.write_text("version = 1\n")
    node = Platform(MINOR, "aarch64", "glibc", (2, 31))
    (cache := tmp_path / "archives").mkdir()
    locked_packages(lock, cache, node)
    asked = uv.with_suffix(".log").read_text().splitlines()
    assert ("export" in asked[0]) == (name == "uv.lock")
    assert f"--python-version {MINOR} --python-platform aarch64-manylinux_2_31" in asked[-1]
    # for this machine: what is put together is on the path of what runs there
    packages = locked_packages(lock, cache, this_platform())
    good = fake_python(tmp_path / "one/python3", f"flow {MINOR} - 0")
    good.write_text(
        f'#!/bin/sh\ncase $2 in *"import zmq"*) echo "flow {MINOR} - 0" ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    search = PythonSearch(MINOR, (str(good),), packages=packages)
    environment = {"FLOW_CACHE": str(tmp_path / "cache"), **dict(variables(packages))}
    told = run(search, environment, f"{PYTHON} -c 'import mine; print(mine.VALUE)'")
    assert told.stdout.strip() == "3", told.stderr
    count = len(uv.with_suffix(".log").read_text().splitlines())
    assert locked_packages(lock, cache, this_platform()).sha256 == packages.sha256
    assert len(uv.with_suffix(".log").read_text().splitlines()) == count, "what is in the cache is not made again"


def test_a_lock_file_that_cannot_be_installed_is_an_error_with_the_tools_words(uv: Path, tmp_path: Path) -> None:
    (lock := tmp_path / "pylock.toml").write_text("")
    uv.with_suffix(".fails").touch()
    with pytest.raises(ExecutorError, match="no such version"):
        locked_packages(lock, tmp_path, this_platform())
