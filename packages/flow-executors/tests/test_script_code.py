"""Which of the script's own modules are listed for nodes, and what a node makes of the list."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from flow_core.errors import ConfigurationError
from flow_core.interfaces.call import Call
from flow_core.remote.functions import digest_of, importable, load_function, pack_function
from flow_core.remote.node_cache import cache_places
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_executors.serialize import script_code
from flow_executors.serialize.script_code import ScriptCode, chosen_module
from flow_executors.serialize.task_records import Functions

LOG = logging.getLogger("test")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path with a module and a package; what is imported from it is gone after the test."""
    folder = tmp_path / "project"
    (folder / "own_package" / "data").mkdir(parents=True)
    (folder / "own_module.py").write_text("def f(x):\n    return x + 1\n")
    (folder / "own_package" / "__init__.py").write_text("")
    (folder / "own_package" / "part.py").write_text("VALUE = 3\n")
    (folder / "own_package" / "data" / "text.txt").write_text("hello")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(script_code, "_LOOK_S", 0.0)
    monkeypatch.setattr(script_code, "_SHARE", 0)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def listed(code: ScriptCode) -> dict[str, tuple[bytes, str, bytes]]:
    import pickle

    digest = code.current()
    if digest is None:
        return {}
    blob = code.blob(digest)
    assert blob is not None
    assert digest_of(blob) == digest
    _, modules = pickle.loads(blob)
    return dict(modules)


def files_of(code: ScriptCode, name: str) -> dict[str, bytes]:
    import pickle
    import zlib

    blob = code.blob(listed(code)[name][0])
    assert blob is not None
    return dict(pickle.loads(zlib.decompress(blob)))


def test_what_the_script_imported_of_its_own_is_listed_and_nothing_installed(project: Path) -> None:
    code = ScriptCode(None, LOG)
    assert not {"own_module", "own_package"} & set(listed(code))
    import own_module  # noqa: F401
    import own_package.part  # noqa: F401

    names = set(listed(code))
    assert {"own_module", "own_package"} <= names
    assert not {"pytest", "zmq", "flow_core", "flow_executors", "json", "cloudpickle", "hypothesis"} & names
    assert files_of(code, "own_module") == {"own_module.py": (project / "own_module.py").read_bytes()}


def test_packages_go_whole_with_their_data(project: Path) -> None:
    import own_package.part  # noqa: F401

    (project / "own_package" / "__pycache__").mkdir(exist_ok=True)
    (project / "own_package" / "__pycache__" / "x.pyc").write_text("")
    (project / "own_package" / ".hidden").write_text("")
    names = set(files_of(ScriptCode(None, LOG), "own_package"))
    assert names == {"own_package/__init__.py", "own_package/part.py", "own_package/data/text.txt"}


def test_a_large_package_goes_without_its_data_and_that_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import own_package.part  # noqa: F401

    monkeypatch.setattr(script_code, "_BYTES", 100)
    (project / "own_package" / "large.bin").write_bytes(b"0" * 1000)
    code = ScriptCode(None, LOG)
    assert set(files_of(code, "own_package")) == {"own_package/__init__.py", "own_package/part.py"}
    assert "own_package" in caplog.text


def test_what_lies_beside_the_script_is_listed_only_where_the_script_would_import_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "own_package" / "large.txt").write_bytes(b"0" * 5000)
    monkeypatch.setattr(script_code, "_BYTES_BESIDE", 1000)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(project / "script.py"), raising=False)
    code = ScriptCode(None, LOG)
    assert {"own_module", "own_package"} <= set(listed(code))
    assert set(files_of(code, "own_package")) == {"own_package/__init__.py", "own_package/part.py"}
    import own_package.part  # noqa: F401

    assert "own_package/large.txt" in files_of(code, "own_package"), "what is imported goes whole"
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(project)])
    assert "own_module" not in listed(ScriptCode(None, LOG)), "with python -P the script would not import it"


def test_a_list_stays_the_same_until_a_file_changes(project: Path) -> None:
    import own_module  # noqa: F401

    code = ScriptCode(None, LOG)
    first = code.current()
    assert code.current() == first
    (project / "own_module.py").write_text("def f(x):\n    return x + 2\n")
    second = code.current()
    assert second != first
    assert first is not None
    assert code.blob(first), "tasks that were submitted before still need it"


def test_what_is_registered_to_go_by_value_is_not_listed(project: Path) -> None:
    import own_module

    cloudpickle.register_pickle_by_value(own_module)
    try:
        assert "own_module" not in listed(ScriptCode(None, LOG))
        assert not importable("own_module")
        assert pack_function(own_module.f)[:1] == b"P"
    finally:
        cloudpickle.unregister_pickle_by_value(own_module)
    assert importable("own_module")
    assert pack_function(own_module.f)[:1] == b"R"


def test_only_what_is_chosen_is_listed(project: Path) -> None:
    import own_module  # noqa: F401

    assert set(listed(ScriptCode(["own_package"], LOG))) == {"own_package"}
    assert set(listed(ScriptCode([str(project / "own_package")], LOG))) == {"own_package"}
    assert chosen_module("no_such_module") == ("no_such_module", [])


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
def test_impossible_choices_are_refused(kind: type[HighThroughputExecutor], project: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a path of a module nor the name of one"):
        kind(code=["no_such_module"])
    with pytest.raises(ConfigurationError, match="or a list"):
        kind(code="own_module")
    kind(code=["own_package"])
    kind(code=None)


def test_functions_of_an_executor_with_files_have_the_list_in_their_blob(project: Path) -> None:
    import own_module

    code = ScriptCode(None, LOG)
    functions = Functions(code)
    call = Call(own_module.f, (1,), {})
    digest = functions.of_call(call)
    blob = functions.blob(digest)
    assert blob is not None
    assert blob[:1] == b"F"
    assert blob[1:17] == code.current()
    assert functions.of_call(call) == digest
    (project / "own_module.py").write_text("def f(x):\n    return x + 2\n")
    assert functions.of_call(call) != digest


NODE = """
import os, pickle, sys
from flow_core.remote import fetching, functions
blobs = pickle.loads(open(sys.argv[1], "rb").read())
asked = []
def fetch(digest):
    asked.append(digest)
    return blobs[digest]
fetching.report_fetching(fetch)
func, _ = functions.load_function(blobs[b"function"])
"""


def on_node(
    project: Path, blobs: dict[bytes, bytes], text: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    import pickle

    (project.parent / "blobs").write_bytes(pickle.dumps(blobs))
    path = os.pathsep.join(p for p in sys.path if p and p != str(project))
    return subprocess.run(
        [sys.executable, "-c", NODE + textwrap.dedent(text), str(project.parent / "blobs")],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": path,
            "FLOW_CACHE": str(project.parent / "cache"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=50,
        cwd="/",
    )


def blobs_for(code: ScriptCode, function: object) -> dict[bytes, bytes]:
    import pickle

    functions = Functions(code)
    blob = functions.blob(functions.of_call(Call(function, (), {})))  # type: ignore[arg-type]
    digest = code.current()
    assert digest is not None
    assert blob is not None
    content = code.blob(digest)
    assert content is not None
    _, modules = pickle.loads(content)
    units = {one[0]: code.blob(one[0]) for one in modules.values()}
    return {b"function": blob, digest: content, **units}  # type: ignore[dict-item]


def test_a_node_without_the_files_imports_them_from_its_cache(project: Path) -> None:
    import own_module
    import own_package.part  # noqa: F401

    blobs = blobs_for(ScriptCode(None, LOG), own_module.f)
    away = project.rename(project.with_name("elsewhere"))
    text = """
    import importlib.resources, own_package.part, traceback
    print(func(1), own_package.part.VALUE, (importlib.resources.files("own_package") / "data/text.txt").read_text())
    print(own_package.__file__, len(asked))
    """
    told = on_node(away, blobs, text)
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.splitlines()
    assert first == "2 3 hello"
    assert second.startswith(str(project.parent / "cache" / str(os.geteuid()) / "code"))
    assert second.endswith(" 3")  # the list, the module, the package
    told = on_node(away, blobs, text)
    assert told.stdout.splitlines()[1].endswith(" 1"), "what is in the cache is not asked for again"


def test_a_node_that_has_the_same_files_takes_them(project: Path) -> None:
    import own_module

    blobs = blobs_for(ScriptCode(None, LOG), own_module.f)
    told = on_node(project, blobs, "print(sys.modules['own_module'].__file__, len(asked))")
    assert told.stdout.split() == [str(project / "own_module.py"), "1"], told.stderr
    (project / "own_module.py").write_text("other = 1\n")
    told = on_node(project, blobs, "print(sys.modules['own_module'].__file__)")
    assert told.stdout.startswith(str(project.parent / "cache")), told.stderr


def test_a_user_without_a_home_has_the_cache_in_the_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOW_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "~")  # as expanduser gives it for a number that is no user
    assert cache_places()[0].startswith(tempfile.gettempdir())
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_places()[0] == "/home/me/.cache/flow"


def test_a_node_on_which_nothing_can_be_written_is_named(project: Path) -> None:
    import own_module

    blobs = blobs_for(ScriptCode(None, LOG), own_module.f)
    away = project.rename(project.with_name("elsewhere"))
    told = on_node(away, blobs, "", FLOW_CACHE="/proc/nothing")
    assert told.returncode == 1
    assert os.uname().nodename in told.stderr
    assert "FLOW_CACHE" in told.stderr


def test_a_blob_with_files_is_refused_where_no_tasks_run(project: Path) -> None:
    import own_module

    blobs = blobs_for(ScriptCode(None, LOG), own_module.f)
    with pytest.raises(Exception, match="this process runs no tasks"):
        load_function(blobs[b"function"])
