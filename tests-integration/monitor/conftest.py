"""A real PostgreSQL server, started by its script."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

SCRIPT = Path(__file__).parents[1] / "services" / "postgres.sh"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not glob.glob("/usr/lib/postgresql/*/bin/postgres"):
        if os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
            pytest.fail(f"PostgreSQL is not installed: run {SCRIPT} install")
        pytest.skip(f"PostgreSQL is not installed: run {SCRIPT} install")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # pytest's own directories are closed to the server's user, again whenever another pytest starts.
    directory = Path(tempfile.mkdtemp(prefix="flow-postgres-"))
    directory.chmod(0o755)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([str(SCRIPT), "start", str(directory), str(port)], stdout=log, stderr=log)
    uri = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        _wait_until_up(uri, process, directory / "log")
        yield uri
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(directory)


def _wait_until_up(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    engine = create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
    end = time.monotonic() + 60
    while True:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            break
        except OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
    engine.dispose()
