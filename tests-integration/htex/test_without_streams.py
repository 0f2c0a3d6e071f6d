"""A script that was started without standard input, output and error, as by a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_SCRIPT = """
import os, sys
import flow
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.providers import LocalProvider

@flow.python_app
def greet():
    print("to the worker's log")
    return "hello"

@flow.bash_app
def shout(stdout=None):
    return "cat; echo loud"

if __name__ == "__main__":
    kind = {"htex": HighThroughputExecutor, "llex": LowLatencyExecutor}[sys.argv[1]]
    executor = kind(label="x", max_workers=1, provider=LocalProvider(init_blocks=1, max_blocks=1))
    with flow.load(flow.Config(executors=[executor, flow.ThreadPoolExecutor("t")])):
        value = greet().result(50)
        codes = [shout.options(executors=[label])(stdout="loud").result(50) for label in ("x", "t")]
    with open("told", "w") as told:
        print(value, codes, file=told)
"""


@pytest.mark.parametrize(("kind", "closed"), [("htex", (0, 1, 2)), ("llex", (0, 2))])
def test_a_script_without_standard_streams_runs_its_tasks(tmp_path: Path, kind: str, closed: tuple[int, ...]) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    closing = " ".join(f"{number}>&-" for number in closed)
    command = ["bash", "-c", f'"{sys.executable}" script.py {kind} {closing}']
    subprocess.run(command, cwd=tmp_path, timeout=55, check=True)
    assert (tmp_path / "told").read_text() == "hello [0, 0]\n"
    assert (tmp_path / "loud").read_text() == "loud\nloud\n"
