"""What travels by value keeps the file it was written in."""

import importlib
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import cloudpickle
import pytest

from flow_core.remote import by_value

SCRIPT = """
import pickle, sys
sys.path[:0] = [{path!r}]
from flow_core.remote import by_value

FACTOR = 3

def helper(x):
    return FACTOR / x

class Model:
    def run(self, x):
        return (lambda: helper(x))()

def app(x):
    def inner():
        return Model().run(x)
    return inner()

sys.stdout.buffer.write(by_value.dumps(app))
"""


@pytest.fixture
def shipped(tmp_path: Path) -> tuple[Path, bytes]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=str(tmp_path)))
    made = subprocess.run([sys.executable, "script.py"], capture_output=True, check=True, cwd=tmp_path, timeout=50)
    return script, made.stdout


def test_every_piece_of_code_keeps_file_line_and_columns(shipped: tuple[Path, bytes]) -> None:
    script, data = shipped
    app = pickle.loads(data)
    with pytest.raises(ZeroDivisionError) as raised:
        app(0)
    frames = traceback.extract_tb(raised.value.__traceback__)[1:]
    assert [(frame.filename, frame.name, frame.line) for frame in frames] == [
        (str(script), "app", "return inner()"),
        (str(script), "inner", "return Model().run(x)"),
        (str(script), "run", "return (lambda: helper(x))()"),
        (str(script), "<lambda>", "return (lambda: helper(x))()"),
        (str(script), "helper", "return FACTOR / x"),
    ]
    assert all(frame.colno is not None for frame in frames)
    assert app(2) == 1.5


def test_six_pieces_of_code_share_the_path_of_their_file(shipped: tuple[Path, bytes]) -> None:
    script, data = shipped
    # With some releases of cloudpickle the other one is the ``__file__`` of the functions' globals.
    assert data.count(str(script).encode()) in (1, 2)


def test_a_function_is_the_same_bytes_whichever_strings_are_interned() -> None:
    source = "def outer(x):\n    return lambda: [x for _ in range(x)]\n"
    made = []
    for file in ("cell.py", "".join(("ce", "ll.py"))):
        space: dict[str, object] = {"__name__": "__main__"}
        exec(compile(source, file, "exec"), space)
        made.append(by_value.dumps(space["outer"]))
    assert made[0] == made[1]


def test_names_that_are_no_paths_stay() -> None:
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile("def f():\n    return 1\n", "<ipython-input-3-0123>", "exec"), space)
    back = pickle.loads(by_value.dumps(space["f"]))
    assert back.__code__.co_filename == "<ipython-input-3-0123>"


def test_a_cloudpickle_that_keeps_the_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(code):
        kind, arguments = cloudpickle.Pickler.dispatch_table[type(code)](code)
        return kind, tuple(code.co_filename if value == "<dynamic-code>" else value for value in arguments)

    monkeypatch.setattr(by_value, "_REDUCE_CODE", kept)
    back = pickle.loads(by_value.dumps(lambda: 1))
    assert back.__code__.co_filename == __file__


def test_buffers_travel_beside_the_pickle() -> None:
    found: list[pickle.PickleBuffer] = []
    data = by_value.dumps(pickle.PickleBuffer(b"x" * 100), found.append)
    assert len(data) < 100
    assert bytes(pickle.loads(data, buffers=found)) == b"x" * 100


CACHING = """
import functools, sys
sys.path[:0] = [{path!r}]
from flow_core.remote import by_value

STEP = 1

@functools.cache
def fibonacci(n):
    "Numbers of rabbits."
    return n if n < 2 else fibonacci(n - STEP) + fibonacci(n - 2)

@functools.lru_cache(maxsize=3, typed=True)
def double(x):
    return 2 * x

class Model:
    @functools.cached_property
    def answer(self):
        return 42

def app():
    model = Model()
    assert model.answer == 42
    assert vars(model) == {{"answer": 42}}
    return fibonacci(30), fibonacci.__doc__, double(4), double.cache_parameters(), fibonacci.cache_info().misses

app()
sys.stdout.buffer.write(by_value.dumps(app))
"""


def test_cached_functions_and_properties_of_a_script_travel_with_empty_caches(tmp_path: Path) -> None:
    code = CACHING.format(path=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=50)
    app = pickle.loads(done.stdout)
    again = pickle.loads(by_value.dumps(app))
    for function in (app, again):
        assert function() == (832040, "Numbers of rabbits.", 8, {"maxsize": 3, "typed": True}, 31)


def test_a_cached_function_that_others_can_import_goes_by_name() -> None:
    from flow_core.memo.identity import is_local

    assert b"is_local" in by_value.dumps(is_local)
    assert pickle.loads(by_value.dumps(is_local)) is is_local


def test_an_app_of_a_package_that_is_registered_to_go_by_value_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "by_value_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(
        "from flow_core import python_app\n@python_app\ndef double(x):\n    return 2 * x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    inner = importlib.import_module("by_value_package.inner")
    whole = sys.modules["by_value_package"]
    by_name = cloudpickle.dumps(inner.double)
    cloudpickle.register_pickle_by_value(whole)
    try:
        data = cloudpickle.dumps(inner.double)
    finally:
        cloudpickle.unregister_pickle_by_value(whole)
        for name in ("by_value_package.inner", "by_value_package"):
            del sys.modules[name]
    monkeypatch.undo()
    with pytest.raises(ModuleNotFoundError, match="by_value_package"):
        pickle.loads(by_name)
    assert pickle.loads(data).__name__ == "double"
