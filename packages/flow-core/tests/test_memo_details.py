"""What is told of a part of a key that has changed: constants, lines, values, contents of files."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kernel_apps import Load

import flow_core as flow
from flow_core.checkpoint.compact import compact
from flow_core.files import Directory, File
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoEntry, MissReason
from flow_core.memo.explain import why
from flow_core.memo.key import memo_key, with_contents
from flow_core.memo.memoizer import BasicMemoizer

TIMEOUT_S = 30
MODULE = "users_own_module"


def module(folder: Path, text: str) -> ModuleType:
    """Load a module of the user's own from a file that was there before the script began."""
    folder.mkdir()
    path = folder / f"{MODULE}.py"
    path.write_text(text)
    os.utime(path, (1, 1))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def key(function: Any, *args: Any) -> Any:
    return memo_key(AppIdentity("app", function), Call(function, args))


def told(tmp_path: Path, before: str, after: str) -> MissReason:
    """Return what is said of a call of ``f`` in the second text, where one in the first is stored, over two runs."""
    try:
        first = BasicMemoizer(checkpoint_mode="task_exit", checkpoint_dir=tmp_path / "1" / "checkpoint")
        first.store([MemoEntry(key(module(tmp_path / "a", before).f, 1), 0, None)])
        first.close()
        second = BasicMemoizer(
            checkpoint_mode="dfk_exit", checkpoint_dir=tmp_path / "2" / "checkpoint", checkpoint_files=[tmp_path / "1"]
        )
        new = key(module(tmp_path / "b", after).f, 1)
        reason = second.explain(new)
        second.store([MemoEntry(new, 0, None)])
        second.close()
        (miss,) = why(tmp_path / "2", [tmp_path / "1"])
        assert miss.reason.how == reason.how  # in the run, and afterwards from the files
        return reason
    finally:
        sys.modules.pop(MODULE, None)


HELPER = "def scale(x):\n    return x * {factor}\ndef f(x):\n    return scale(x) + 1\n"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (HELPER.format(factor=2), HELPER.format(factor=3), "global 'scale' (helper scale(): constant 2 -> 3)"),
        (HELPER.format(factor=2), HELPER.format(factor="'ab'"), "global 'scale' (helper scale(): constant 2 -> 'ab')"),
        (
            HELPER.format(factor=2),
            HELPER.format(factor="len(str(x))"),
            "global 'scale' (helper scale(): line 'return x * 2' -> line 'return x * len(str(x))')",
        ),
        ("def f(x):\n    return x + 1\n", "def f(x):\n    return x + 2\n", "code (constant 1 -> 2)"),
        (
            "def f(x):\n    return x\n",
            "def f(x):\n    print(x)\n    return x\n",
            "code (with line 'print(x)')",
        ),
        (
            "def f(x):\n    print(x)\n    return x\n",
            "def f(x):\n    return x\n",
            "code (without line 'print(x)')",
        ),
        (
            "def f(x):\n    return [y + 1 for y in x]\n",
            "def f(x):\n    return [y + 5 for y in x]\n",
            "code (constant 1 -> 5)",
        ),
        ("N = 1\ndef f(x): return N\n", "N = 2\ndef f(x): return N\n", "global 'N' (1 -> 2)"),
        ("N = 'a'\ndef f(x): return N\n", "N = None\ndef f(x): return N\n", "global 'N' ('a' -> None)"),
        (
            "N = 1\ndef g(): return N\ndef f(x): return g()\n",
            "N = 2\ndef g(): return N\ndef f(x): return g()\n",
            "global 'g' (N of helper g(): 1 -> 2)",
        ),
        (
            "class K:\n    n = 1\n    def m(self): return 2\ndef f(x): return K().m()\n",
            "class K:\n    n = 1\n    def m(self): return 3\ndef f(x): return K().m()\n",
            "global 'K' (helper K.m(): constant 2 -> 3)",
        ),
        (
            "class K:\n    n = 1\ndef f(x): return K.n\n",
            "class K:\n    n = 7\ndef f(x): return K.n\n",
            "global 'K' (n of class K: 1 -> 7)",
        ),
        ("N = [1]\ndef f(x): return N\n", "N = [2]\ndef f(x): return N\n", "global 'N'"),
        (
            "def g(): return 1\ndef f(x): return g()\n",
            "def h(): return 2\ng = h\ndef f(x): return g()\n",
            "global 'g' (helper h() is new; helper g() is gone)",
        ),
    ],
)
def test_a_changed_part_is_told_with_what_has_changed_in_it(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    reason = told(tmp_path, before, after)
    assert reason.changes == expected
    assert expected in reason.summary


def test_of_many_changes_the_first_are_told(tmp_path: Path) -> None:
    text = "".join(f"def g{n}(): return {{0}}\n" for n in range(9))
    text += "def h(): return (" + ", ".join(f"g{n}()" for n in range(9)) + ")\ndef f(x): return h()\n"
    (how,) = told(tmp_path, text.format(1), text.format(2)).how
    assert how.count("constant 1 -> 2") == 3
    assert how.endswith("; and 6 more")


def test_code_in_arguments_is_told_of(tmp_path: Path) -> None:
    memo = BasicMemoizer(checkpoint_dir=tmp_path)

    def apply(function: Any) -> Any:
        return function(1)

    def made(number: int) -> Any:
        namespace: dict[str, Any] = {"__name__": "users_own"}
        exec(f"def chosen(x): return x + {number}", namespace)
        return namespace["chosen"]

    memo.store([MemoEntry(key(apply, made(1)), 0, None)])
    assert memo.explain(key(apply, made(2))).changes == "argument 'function' (helper chosen(): constant 1 -> 2)"
    memo.close()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("sha256:aa\n3 100 1", "sha256:bb\n5000 100 1", "file 'x' (3 -> 5,000 bytes)"),
        ("sha256:aa\n3 100 1", "sha256:bb\n3 100 1", "file 'x' (other content, of 3 bytes as before)"),
        ("", "sha256:bb\n3 100 1", "file 'x' (it was not there)"),
        ("sha256:aa\n3 100 1", "", "file 'x' (it is not there)"),
        ('3 "one"', '3 "two"', "file 'x' (3 \"one\" -> 3 \"two\")"),
        ("directory: a\nof: b", "directory: c\nof: d", "file 'x' (other files in it, or others of their contents)"),
    ],
)  # fmt: skip
def test_a_changed_file_is_told_with_how_it_has_changed(tmp_path: Path, before: str, after: str, expected: str) -> None:
    memo = BasicMemoizer(checkpoint_dir=tmp_path)
    named = key(str, "x")
    memo.store([MemoEntry(with_contents(named, [("x", before)]), 0, None)])
    assert memo.explain(with_contents(named, [("x", after)])).changes == expected
    memo.close()


def test_a_file_that_was_known_by_its_name_alone_is_told_apart(tmp_path: Path) -> None:
    memo = BasicMemoizer(checkpoint_dir=tmp_path)
    named = key(str, "x")
    memo.store([MemoEntry(named, 0, None)])
    changes = memo.explain(with_contents(named, [("x", "sha256:aa\n3 100 1")])).changes
    assert changes == "file 'x' (what it holds did not count then)"
    memo.close()


@flow.python_app(cache=True)
def read(inputs: Any = ()) -> None:
    pass


def test_log_and_files_of_a_run_say_which_input_has_changed(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs: list[Path] = []
    Path("folder").mkdir()
    for text in ("one", "three"):
        Path("data.txt").write_text(text)
        with load(checkpoint_mode="task_exit", checkpoint_files=list(runs)) as kernel:
            read(inputs=[File("data.txt"), Directory("folder")]).result(TIMEOUT_S)
        flow.clear()
        runs.append(kernel.run_dir)
    log = (runs[1] / "flow.log").read_text()
    assert "whose files have changed, such as task 0 (read): file 'data.txt' (3 -> 5 bytes)" in log
    (miss,) = why(runs[1], [runs[0]])
    assert miss.reason.changes == "file 'data.txt' (3 -> 5 bytes)"


@flow.python_app(cache=True)
def make(outputs: Any = ()) -> None:
    Path(outputs[0]).write_text("made")


def test_a_call_that_was_run_for_its_output_is_told_so(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs: list[Path] = []
    for edit in (lambda: None, lambda: Path("out.txt").unlink(), lambda: Path("out.txt").write_text("by hand")):
        edit()
        with load(checkpoint_mode="task_exit", checkpoint_files=list(runs)) as kernel:
            make(outputs=[File("out.txt")]).result(TIMEOUT_S)
        flow.clear()
        runs.append(kernel.run_dir)
    reasons = [why(run, runs[:number])[0].reason for number, run in enumerate(runs)]
    assert [reason.again for reason in reasons] == [
        "",
        "an output was gone: out.txt",
        "an output was no longer as it had been made: out.txt",
    ]
    assert reasons[1].summary.endswith("and was run again, since an output was gone: out.txt")


def test_a_damaged_file_of_details_costs_words_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tmp_path / "1"
    first = BasicMemoizer(checkpoint_mode="task_exit", checkpoint_dir=checkpoint)
    named = key(str, "x")
    first.store([MemoEntry(with_contents(named, [("x", "sha256:aa\n3 100 1")]), 0, None)])
    first.close()
    good = (checkpoint / "details.log").read_bytes()
    assert (checkpoint / "details.log").stat().st_mode & 0o077 == 0
    new = with_contents(named, [("x", "sha256:bb\n5 100 1")])
    for damaged in (good[:-3], b"nonsense" * 10, good.replace(b"sha256", b"sha25?"), b""):
        (checkpoint / "details.log").write_bytes(damaged)
        memo = BasicMemoizer(checkpoint_dir=tmp_path / "2", checkpoint_files=[checkpoint])
        with caplog.at_level(logging.DEBUG):
            assert memo.explain(new).changes == "file 'x'"
        memo.close()
    (checkpoint / "details.log").unlink()
    assert why(checkpoint, []) != []


def test_what_can_be_told_comes_along_when_checkpoints_become_one(tmp_path: Path) -> None:
    named, version = key(str, "x"), "sha256:aa\n3 100 1"
    for number, name in enumerate("xy"):
        memo = BasicMemoizer(checkpoint_mode="task_exit", checkpoint_dir=tmp_path / name)
        memo.store([MemoEntry(with_contents(named, [(name, version)]), number, None)])
        memo.close()
    compact([tmp_path / "x", tmp_path / "y"], tmp_path / "both")
    assert (tmp_path / "both" / "details.log").stat().st_mode & 0o077 == 0
    memo = BasicMemoizer(checkpoint_dir=tmp_path / "2", checkpoint_files=[tmp_path / "both"])
    for name in "xy":
        new = with_contents(named, [(name, "sha256:bb\n5 100 1")])
        assert memo.explain(new).changes == f"file '{name}' (3 -> 5 bytes)"
    memo.close()
