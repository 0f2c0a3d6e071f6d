"""How tests of the providers start what they need by the scripts in ``services/``, and say what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

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
