"""Real runtimes of containers, and the proof that no container is left."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for container_services

from container_services import PATIENCE_S, SERVICES, by_script, containers, missing  # needs the line above


@pytest.fixture(scope="session")
def _podman_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("podman") is None:
        missing("podman is not installed; get it by tests-integration/services/podman.sh install")
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    by_script("podman", "settings", str(settings))
    return settings


@pytest.fixture
def podman(_podman_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have podman on this machine, by settings that work on it."""
    monkeypatch.setenv("CONTAINERS_CONF", str(_podman_settings))


@pytest.fixture
def image(podman: None) -> str:
    """Give the name of an image of podman's with Python, bash and nothing of Flow."""
    content = hashlib.sha256((SERVICES / "podman.sh").read_bytes() + sys.version.encode()).hexdigest()[:12]
    name = f"localhost/flow-test-python:{content}"
    by_script("podman", "image", sys.executable, name)
    return name


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a small system that has bash and this Python, and nothing of Flow."""
    if os.geteuid() != 0:
        missing("only root can mount the images of these tests")
    directory = tmp_path_factory.mktemp("image") / "root"
    by_script("podman", "rootfs", sys.executable, str(directory))
    return directory


@pytest.fixture
def label() -> str:
    """Give a label for an executor, by which its containers are known among all others."""
    return f"p{uuid4().hex[:8]}"


@pytest.fixture
def gone(podman: None, label: str) -> Iterator[Callable[[], None]]:
    """Give a function that waits until podman has no container of the executor; at the end there must be none."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while left := containers(label):
            assert time.monotonic() < deadline, f"left: {left}"
            time.sleep(0.2)

    try:
        yield wait
        wait()
    finally:
        for name in containers(label):
            with suppress(subprocess.SubprocessError):
                subprocess.run(["podman", "rm", "--force", "--time=0", name], timeout=30, check=False)
