"""moto's server, which answers as S3 does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def moto_server(log: Path, host: str = "127.0.0.1") -> Iterator[int]:
    """Run it; gives its port."""
    code = f"import sys; from moto.server import main; main(['-H', {host!r}, '-p', '0'])"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=stream, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(rb"Running on http://[0-9.]+:(\d+)", log.read_bytes())):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(20)
