"""Directories whose names are no UTF-8, or no ASCII in a process without UTF-8: blocks run there all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_SCRIPT = """
import sys
import flow_core as flow
from flow_core import Config, python_app
from flow_executors.htex import HighThroughputExecutor
from flow_providers.local.provider import LocalProvider

@python_app
def double(x):
    return 2 * x

htex = HighThroughputExecutor(label="h", max_workers=1, provider=LocalProvider(max_blocks=1))
with flow.load(Config(executors=[htex], run_dir=sys.argv[1], strategy_period=0.2)):
    print("value", double(21).result(timeout=40), flush=True)
"""
_C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("folder", "run_dir", "environment"),
    [
        (b"caf\xe9", "runinfo", {}),
        (b"plain", "läufe", _C_LOCALE),
        ("Größe".encode(), "runinfo", _C_LOCALE),
    ],
)
def test_a_directory_with_an_odd_name_holds_a_whole_run(folder, run_dir, environment, tmp_path: Path) -> None:
    here = os.fsencode(tmp_path) + b"/" + folder
    os.mkdir(here)
    script = os.fsdecode(here) + "/script.py"
    Path(script).write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, script, run_dir],
        cwd=here,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=55,
        check=False,
    )
    assert "value 42" in done.stdout, done.stderr
