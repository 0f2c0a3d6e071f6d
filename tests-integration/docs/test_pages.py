"""Every page of the documentation is a script that runs: its Python blocks, one after the other."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flow_providers import CommandResult, SlurmProvider
from flow_providers.channels import LocalChannel

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Pages whose programs need more than Flow: the tests of these services run them.
_ON_SERVICES = ("mpi.md",)
PAGES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packages/*/README.md")])
    if BLOCK.search(path.read_text()) and path.name not in _ON_SERVICES
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_runs_as_a_script(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(BLOCK.findall(page.read_text())))
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_script_for_an_allocation_says_outside_of_one_where_it_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```py\n# inside\.py\n(.*?)^```$", (ROOT / "docs" / "nersc.md").read_text(), re.M | re.S)
    (tmp_path / "inside.py").write_text(code)
    (tmp_path / "site_options.py").write_text("WORKER_INIT = ''\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "inside.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "inside.py runs in a job of Slurm: submit it by sbatch, or allocate nodes by salloc first\n"


def test_there_are_pages_to_run() -> None:
    assert len(PAGES) >= 8


def test_the_tables_of_options_are_those_of_the_code() -> None:
    command = [sys.executable, str(ROOT / "docs" / "option_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def test_the_options_of_slurm_become_the_lines_that_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "troubles.md").read_text()
    said = re.findall(r"^\| `(\w+)=(\S+|\".*\")` \| `SlurmProvider` \| `(#SBATCH .*)` \|$", page, re.MULTILINE)
    options = {name: ast.literal_eval(value) for name, value, _line in said}
    assert len(options) >= 11

    class Recording(LocalChannel):
        script = ""

        def push_bytes(self, content: bytes, path: str, *args: object, **kept: object) -> str:
            self.script = content.decode()
            return path

        def execute_wait(self, *args: object, **kept: object) -> CommandResult:
            return CommandResult(0, "17", "")

    channel = Recording(script_dir=str(tmp_path))
    SlurmProvider(channel=channel, **options).submit("true", 1)
    assert [line for _name, _value, line in said if line not in channel.script.splitlines()] == []
