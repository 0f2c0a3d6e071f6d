"""Full disks, real ones: small file systems in memory, which root may mount."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from staging_servers import QUICK, Page, incoming, outgoing, visible
from staging_services import need_programs, started

from flow_core.errors import StagingError
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Staging, Transfer
from flow_staging import FTPSeparateTaskStaging, HTTPSeparateTaskStaging, RSyncStaging, ZipFileStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

pytestmark = pytest.mark.services
NOISE = os.urandom(4 << 20)


@pytest.fixture
def full() -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = Path(tempfile.mkdtemp(prefix="flow-full-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip("needs root to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def go(method: Staging, transfer: Transfer) -> None:
    step = method.step([transfer])
    if step is not None:
        step.run(lambda: None, NodeContext(executor="here"))
    elif (moving := method.stage([transfer])) is not None:
        moving.result(50)


def refused(method: Staging, transfer: Transfer) -> str:
    """Fail to move a file; returns what was said of it."""
    with pytest.raises(StagingError, match="task 7 on executor here") as caught:
        go(method, transfer)
    method.close()
    assert caught.value.url in str(caught.value)
    return str(caught.value)


def test_an_input_by_http(web, full):
    web.pages["/a"] = Page(NOISE)
    assert "the disk is full" in refused(HTTPSeparateTaskStaging(retry=QUICK), incoming(web.url("/a"), full / "a"))
    assert visible(full) == []


def test_an_input_and_an_output_by_ftp(full, tmp_path):
    (tmp_path / "a").write_bytes(NOISE)
    for root, transfer in (
        (tmp_path, lambda url: incoming(f"{url}/a", full / "in")),
        (full, lambda url: outgoing(tmp_path / "a", f"{url}/out")),
    ):
        server = FtpServer(root)
        said = refused(FTPSeparateTaskStaging(retry=QUICK), transfer(server.url("")))
        server.close()
        assert ("the disk is full" if root is tmp_path else "tried 4 times") in said
        assert visible(full) == []


def test_an_input_by_zip(full, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", NOISE)
    assert "the disk is full" in refused(ZipFileStaging(), incoming(f"zip:{tmp_path}/a.zip/a", full / "a"))
    assert visible(full) == []


@pytest.mark.parametrize("there_already", [False, True])
def test_an_output_by_zip_leaves_the_archive_as_it_was(full, tmp_path, there_already):
    (tmp_path / "a").write_bytes(NOISE)
    if there_already:
        with zipfile.ZipFile(full / "a.zip", "w") as archive:
            archive.writestr("old", b"kept")
    before = {name: (full / name).read_bytes() for name in visible(full)}
    assert "the disk is full" in refused(ZipFileStaging(), outgoing(tmp_path / "a", f"zip:{full}/a.zip/a"))
    assert {name: (full / name).read_bytes() for name in visible(full)} == before


def test_files_by_rsync(full, tmp_path):
    need_programs("rsync.sh", "rsync", "sshd", "ssh")
    (tmp_path / "a").write_bytes(NOISE)
    with started("rsync.sh", tmp_path / "sshd") as (address, port, key, known, user):
        ssh = f"ssh -F none -p {port} -i {key} -o UserKnownHostsFile={known}"
        method = RSyncStaging(f"{user}@{address}", ssh=ssh, retry=QUICK)
        assert "the disk is full" in refused(method, incoming(str(tmp_path / "a"), full / "in"))
        assert visible(full) == []
        assert "the disk is full" in refused(method, outgoing(tmp_path / "a", str(full / "out")))
        method.close()
        assert os.listdir(full) == []
