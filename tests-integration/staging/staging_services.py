"""Services that tests-integration/services installs and starts; without one its tests are skipped, or fail in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[1] / "services"


def missing(what: str, script: str) -> None:
    said = f"{what} is missing: tests-integration/services/{script} install"
    if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
        pytest.fail(said)
    pytest.skip(said)


def need_programs(script: str, *names: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for name in names:
        if shutil.which(name, path=path) is None:
            missing(name, script)


def need_modules(script: str, *names: str) -> None:
    for name in names:
        if find_spec(name) is None:
            missing(name, script)


@contextmanager
def started(script: str, directory: Path) -> Iterator[list[str]]:
    """Run a service; gives the words that its script prints."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "start.log"
    with log.open("wb") as stream:
        done = subprocess.run(
            [str(SERVICES / script), "start", str(directory)],
            stdout=subprocess.PIPE,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            timeout=50,
            check=False,
        )
    try:
        assert done.returncode == 0, log.read_text()
        yield done.stdout.decode().split()
    finally:
        subprocess.run([str(SERVICES / script), "stop", str(directory)], timeout=30, check=False)
