"""Chapter: modularizing a workflow: configuration, apps and control each in a file of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
from flow.config import Config
from flow.executors.threads import ThreadPoolExecutor
from flow.executors import HighThroughputExecutor

local_threads = Config(executors=[ThreadPoolExecutor(max_threads=4)], lazy_errors=True)
local_htex = Config(executors=[HighThroughputExecutor(max_workers=2)])
"""

LIBRARY = """
from flow import python_app

OFFSET = 1

@python_app
def increment(x):
    return x + OFFSET
"""

CONTROL = """
import flow
from site_config import {name}
from library import increment

flow.load({name})

for i in range(5):
    print('{{}} + 1 = {{}}'.format(i, increment(i).result()))
"""


@pytest.mark.parametrize("name", ["local_threads", "local_htex"])
def test_apps_of_a_library_follow_the_configuration_of_the_script(tmp_path: Path, name: str):
    (tmp_path / "site_config.py").write_text(CONFIG)
    (tmp_path / "library.py").write_text(LIBRARY)
    (tmp_path / "run_increment.py").write_text(CONTROL.format(name=name))
    done = subprocess.run(
        [sys.executable, "run_increment.py"], cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{i} + 1 = {i + 1}\n" for i in range(5))
