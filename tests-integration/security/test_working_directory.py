"""Another user's directory as the working directory: nothing in it is run by being there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from security_attacker import Attacker

SCRIPT = """
import sys
import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider

@python_app
def double(x):
    return 2 * x

if __name__ == "__main__":
    top = sys.argv[1]
    executors = [kind(max_workers=1, provider=LocalProvider()) for kind in (HighThroughputExecutor, LowLatencyExecutor)]
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{top}/monitoring.db")
    with flow.load(Config(executors, run_dir=f"{top}/runinfo", monitoring=hub)):
        print(double(1).result(), double(2).result())
"""
_NAMES = (
    *("zmq", "orjson", "sqlalchemy", "alembic", "psutil", "cloudpickle", "click", "rich", "flask", "script", "config"),
    *("json", "socket", "struct", "logging", "runpy", "site", "sitecustomize", "usercustomize"),
    *("flow", "flow_core", "flow_executors", "flow_monitor", "flow_providers", "flow_staging", "flow_viz"),
)


@pytest.fixture
def theirs(tmp_path: Path, attacker: Attacker) -> Path:
    """A directory of another user with modules of the names that Flow imports, and files that look like settings."""
    made = tmp_path / "theirs"
    made.mkdir()
    marker = made / "marker"
    for name in _NAMES:
        (made / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write('{name} ')\nraise ImportError('theirs')\n")
    for name in ("flow.configs.local_threads", "flow.configs.local_htex", ".flow.py", "flow.cfg"):
        (made / name).write_text(f"open({str(marker)!r}, 'a').write('{name} ')\n")
    for path in (made, *made.iterdir()):
        os.chown(path, attacker.uid, attacker.gid)
    return made


def run(cwd: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=100, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_no_process_of_a_run_imports_from_where_it_was_started(theirs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (mine / "script.py").write_text(SCRIPT)
    done = run(theirs, sys.executable, mine / "script.py", mine)
    assert done.stdout == "2 4\n", done.stderr
    assert not (theirs / "marker").exists(), (theirs / "marker").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "arguments",
    [
        ["flow", "--version"], ["flow", "run", "{mine}/script.py"], ["flow", "checkpoint", "ls"], ["flow", "why"],
        ["flow", "files"], ["flow", "cache", "why", "000"], ["flow", "monitor", "upgrade"],
        ["flow", "monitor", "rebuild", "000"], ["flow", "monitor", "export", "prometheus"],
        ["flow-providers", "jobs", "ls", "--ask"], ["flow-visualize", "--help"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_runs_what_lies_in_the_working_directory(arguments: list[str], theirs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (mine / "script.py").write_text("print('ran')\n")
    command, *rest = (one.format(mine=mine) for one in arguments)
    done = run(theirs, Path(sys.executable).with_name(command), *rest)
    assert "Traceback" not in done.stderr
    assert not (theirs / "marker").exists(), (theirs / "marker").read_text()
