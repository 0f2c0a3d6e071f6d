"""How tests of containers come to images of this machine's own Python, and see which containers there are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

SERVICES = Path(__file__).parents[1] / "services"
PATIENCE_S = 120.0


def missing(what: str) -> NoReturn:
    """Skip the test for want of something; where services are required, fail it."""
    if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
        pytest.fail(what)
    pytest.skip(what)


def by_script(name: str, *words: str, timeout_s: float = 100) -> str:
    """Run a verb of a service's script; return what it prints."""
    done = subprocess.run(
        ["bash", SERVICES / f"{name}.sh", *words], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        missing(f"{name}.sh {words[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def run(*command: str, cwd: Path) -> str:
    """Return what a command prints; fail with all that it says where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def containers(label: str) -> list[str]:
    """Return the names of podman's containers of an executor, also of ended ones."""
    words = ["podman", "ps", "--all", "--filter", f"name=flow-{label}-", "--format", "{{.Names}}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=50, check=True).stdout.split()


def pid_of(name: str, word: str) -> int:
    """Return the pid, as this machine knows it, of the process in a container whose command has a word."""
    words = ["podman", "top", name, "hpid", "args"]
    table = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    # Commands may have several lines.
    rows = [line.split() for line in table.splitlines() if word in line]
    return next(int(row[0]) for row in rows if row[0].isdigit())
