"""Fixtures of the staging tests: servers on loopback, an own CA, files to move."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for staging_servers, also in processes that a fixture starts

from staging_servers import WebServer  # needs the line above


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an own CA (``ca.pem``) and a server's key and certificate for 127.0.0.1 made by it."""
    home = tmp_path_factory.mktemp("authority")
    (home / "ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=home, check=True, capture_output=True, timeout=30)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj")
    openssl("req", "-x509", *new, "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    openssl("req", *new, "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
    return home


@pytest.fixture
def secure_web(authority: Path) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    server = WebServer(context)
    yield server
    server.close()


@pytest.fixture(scope="session")
def payload() -> bytes:
    return bytes(os.urandom(3 << 20))


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MB of noise."""
    path = tmp_path_factory.mktemp("big") / "big.bin"
    with path.open("wb") as stream:
        for _ in range(16):
            stream.write(os.urandom(4 << 20))
    return path
