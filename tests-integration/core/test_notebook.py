"""Cells of a notebook: code without a file, in ``__main__``, run again and edited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_KERNEL = """
import json, sys, types
main = types.ModuleType("__main__")
main.__dict__["__builtins__"] = __builtins__
sys.modules["__main__"] = main
for number, cell in enumerate(json.loads(sys.argv[1])):
    exec(compile(cell, f"<cell {number}>", "exec"), main.__dict__)
"""

EXECUTORS = {
    "threads": "flow.ThreadPoolExecutor()",
    "processes": "concurrent.futures.ProcessPoolExecutor(2)",
    "htex": "flow.HighThroughputExecutor(max_workers=1)",
}


def run_cells(directory: Path, *cells: str) -> str:
    command = [sys.executable, "-c", _KERNEL, json.dumps(cells)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("executor", EXECUTORS)
def test_apps_of_cells_with_their_helpers_and_classes_run_everywhere(tmp_path: Path, executor: str) -> None:
    told = run_cells(
        tmp_path,
        "import concurrent.futures, flow\nfactor = 3",
        f"kernel = flow.load(flow.Config(executors=[{EXECUTORS[executor]}]))",
        "class Sample:\n    def __init__(self, size): self.size = size\n\ndef helper(x): return x * factor",
        "@flow.python_app\ndef grow(sample): return Sample(helper(sample.size))",
        "@flow.bash_app\ndef shout(text, stdout=flow.AUTO_LOGNAME): return f'echo {text}!'",
        "print(grow(grow(Sample(2))).result().size)",
        "future = shout('hello'); future.result(); print(open(future.stdout).read())",
        "flow.clear()",
    )
    assert told.split() == ["18", "hello!"]


def test_an_edited_cell_is_another_call_and_the_same_one_is_not(tmp_path: Path) -> None:
    app = "@flow.python_app(cache=True)\ndef slow(x):\n    print('ran')\n    return x + %d"
    told = run_cells(
        tmp_path,
        "import flow\nflow.load()",
        app % 1,
        "print(slow(1).result())",
        "\n\n" + app % 1,
        "print(slow(1).result())",
        app % 2,
        "print(slow(1).result())",
    )
    assert told.split() == ["ran", "2", "2", "ran", "3"]


def test_loading_a_cell_twice_says_how_to_clear_and_then_works(tmp_path: Path) -> None:
    load = "config = flow.Config(); flow.load(config)"
    told = run_cells(
        tmp_path,
        "import flow\n@flow.python_app\ndef one(): return 1",
        load,
        f"try:\n    {load}\nexcept flow.errors.ConfigurationError as error:\n    print(error)",
        "flow.clear()",
        load,
        "print(one().result())",
    )
    assert "call flow.clear() first" in told
    assert told.split()[-1] == "1"


def test_a_log_can_be_asked_for_after_the_load(tmp_path: Path) -> None:
    told = run_cells(
        tmp_path,
        "import flow, sys\nflow.load()",
        "flow.set_stream_logger(stream=sys.stdout)",
        "@flow.python_app\ndef one(): return 1",
        "one().result(); flow.dfk().wait_for_current_tasks(); flow.clear()",
    )
    assert "task 0 (one) ended as exec_done" in told
