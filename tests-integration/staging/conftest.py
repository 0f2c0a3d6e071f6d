"""Fixtures of the staging tests: servers on loopback, files to move."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for staging_servers, also in processes that a fixture starts

from staging_moto import moto_server  # these need the line above
from staging_servers import WebServer
from staging_services import need_modules

if TYPE_CHECKING:
    from staging_ftp import FtpServer


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def secure_web(authority: Path) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    server = WebServer(context)
    yield server
    server.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the files of a server of the test are."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def ftp(root: Path) -> Iterator[FtpServer]:
    """An ftp server on that directory; its tests are left out without pyftpdlib."""
    pytest.importorskip("pyftpdlib")
    from staging_ftp import FtpServer

    server = FtpServer(root)
    yield server
    server.close()


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that answers as S3 does."""
    need_modules("moto.sh", "moto", "boto3", "flask")
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture
def s3_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 the login that moto takes."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


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
