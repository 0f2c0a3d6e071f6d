"""Big files pass through every method in constant memory, measured on a fresh process for each way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from staging_servers import Page, WebServer, same
from staging_services import need_modules, need_programs, started

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer
from staging_moto import moto_server

MOVING = Path(__file__).with_name("moving.py")
MOST_MB = 96
"""What a process may take more for a big file than for an empty one. A part of S3 is 16 MiB, held up to three times."""
ORDINARY, LARGE = 128 << 20, 1 << 30


@dataclass
class Way:
    """A method as an expression, where the file is for it, and whether it can take one out there."""

    method: str
    url: str
    out: bool = True


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that is removed at once, for files of this size."""
    path = Path(tempfile.mkdtemp(prefix="flow-large-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def size(request: pytest.FixtureRequest, place: Path) -> int:
    wanted: int = request.param
    if shutil.disk_usage(place).free < 5 * wanted:
        pytest.skip("not enough space on the disk")
    make(place / "big", wanted)
    make(place / "empty", 0)
    return wanted


def sizes(ordinary: tuple[pytest.MarkDecorator, ...] = ()) -> pytest.MarkDecorator:
    big = [pytest.param(LARGE, id="1GB", marks=(pytest.mark.services, pytest.mark.timeout(300)))]
    return pytest.mark.parametrize("size", [pytest.param(ORDINARY, id="128MB", marks=ordinary), *big], indirect=True)


def make(path: Path, size: int) -> Path:
    """Make a file whose blocks differ, mostly holes: a gigabyte takes no time and packs well."""
    with path.open("wb") as stream:
        stream.truncate(size)
        for offset in range(0, size, 16 << 20):
            stream.seek(offset)
            stream.write(os.urandom(4096))
    return path


def peaks(way: Way, direction: str, url: str, path: Path, environment: dict[str, str]) -> list[int]:
    """Move a file; return the peaks of process and children in MB."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(MOVING), way.method, direction, url, str(path)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) >> 10 for line in done.stdout.split()]


def check(way: Way, place: Path, size: int, **environment: str) -> None:
    """Send a big file out and bring it back, each in a fresh process, beside an empty one."""
    big, empty = place / "big", place / "empty"
    grown: list[int] = []
    for direction, suffix in (("out", "back"), ("in", "back")) if way.out else (("in", "back"),):
        incoming = direction == "in"
        least = peaks(way, direction, f"{way.url}-empty", place / suffix if incoming else empty, environment)
        most = peaks(way, direction, way.url, place / suffix if incoming else big, environment)
        grown += [after - before for before, after in zip(least, most, strict=True)]
    assert same(place / "back", big)
    print(f"{size >> 20} MB grew process and children by {grown} MB")
    assert max(grown) < MOST_MB


@sizes()
def test_by_http(web: WebServer, place, size):
    web.pages["/big"], web.pages["/big-empty"] = Page(place / "big"), Page(b"")
    check(Way("flow_staging.HTTPSeparateTaskStaging()", web.url("/big"), out=False), place, size)


@sizes()
def test_by_ftp(place, size):
    (place / "root").mkdir()
    server = FtpServer(place / "root")
    try:
        check(Way("flow_staging.FTPSeparateTaskStaging()", server.url("/big")), place, size)
    finally:
        server.close()


@sizes()
def test_by_zip(place, size):
    method = "flow_staging.ZipFileStaging(limits=flow_staging.SizeLimits(max_ratio=None))"  # the file is full of zeros
    check(Way(method, f"zip:{place}/archive.zip/big"), place, size)
    with zipfile.ZipFile(place / "archive.zip") as archive:
        assert archive.getinfo("big").file_size == size


@sizes((pytest.mark.services,))
def test_by_s3(place, size):
    need_modules("moto.sh", "moto", "boto3", "flask")
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    with moto_server(place / "log") as port:
        endpoint = f"http://127.0.0.1:{port}"
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="bucket")
        client.close()
        check(Way(f"flow_staging.S3Staging(endpoint_url={endpoint!r})", "s3://bucket/big"), place, size, **keys)


@sizes((pytest.mark.services,))
def test_by_rsync(place, size):
    need_programs("rsync.sh", "rsync", "sshd", "ssh")
    with started("rsync.sh", place / "sshd") as (address, port, key, known, user):
        ssh = f"ssh -F none -p {port} -i {key} -o UserKnownHostsFile={known}"
        method = f"flow_staging.RSyncStaging({f'{user}@{address}'!r}, ssh={ssh!r})"
        check(Way(method, str(place / "there" / "big")), place, size)
