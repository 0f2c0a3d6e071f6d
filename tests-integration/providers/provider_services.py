"""How tests of the providers start what they need by the scripts in ``services/``, and say what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from flow_providers.channels.ssh import SSHChannel

SERVICES = Path(__file__).parents[1] / "services"


@contextmanager
def service(name: str, needs: str, env: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Start a service and give the variables its clients need; skip, or fail if services are required, without it."""
    script = SERVICES / f"{name}.sh"
    environment = {**os.environ, **(env or {})}
    if shutil.which(needs, path=os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/lib/gridengine") is None:
        missing(f"{name}: {needs} is not installed; get it by tests-integration/services/{name}.sh install")
    started = subprocess.run(["bash", script, "start"], capture_output=True, text=True, timeout=55, env=environment)
    if started.returncode != 0:
        missing(f"{name} does not start: {started.stderr.strip()[-500:]}")
    try:
        yield exports(started.stdout)
    finally:
        subprocess.run(["bash", script, "stop"], capture_output=True, timeout=55, env=environment, check=False)


def host_channels(hosts: Mapping[str, str], folder: Path, **options: object) -> list[SSHChannel]:
    """Return a channel to each of the two hosts; their files are in the folder."""
    return [
        SSHChannel(
            hosts[name],
            username=hosts["HOSTS_TEST_USER"],
            key_filename=hosts["HOSTS_TEST_KEY"],
            known_hosts=hosts["HOSTS_TEST_KNOWN_HOSTS"],
            script_dir=str(folder / name),
            **options,  # type: ignore[arg-type]  # checked by the constructor
        )
        for name in ("HOSTS_TEST_FIRST", "HOSTS_TEST_SECOND")
    ]


@contextmanager
def link_cut(host: int, seconds: float) -> Iterator[Iterator[float]]:
    """Cut the way to a host, and give the seconds that are left until it is mended, twice a second."""
    subprocess.run(["bash", SERVICES / "hosts.sh", "cut", str(host)], check=True, timeout=20)
    try:
        yield _countdown(seconds)
    finally:
        subprocess.run(["bash", SERVICES / "hosts.sh", "heal", str(host)], check=True, timeout=20)


def _countdown(seconds: float) -> Iterator[float]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield left
        time.sleep(min(left, 0.5))


def exports(text: str) -> dict[str, str]:
    """Return the variables of a script's last ``export`` line."""
    lines = [line for line in text.splitlines() if line.startswith("export ")]
    pairs = re.findall(r"(\w+)=(\S+)", lines[-1]) if lines else []
    return {key: value.replace("$PATH", os.environ["PATH"]) for key, value in pairs}


def missing(why: str) -> None:
    """Skip the test, or fail it where services are required."""
    if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
        pytest.fail(why)
    pytest.skip(why)
