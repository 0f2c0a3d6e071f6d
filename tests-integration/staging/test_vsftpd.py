"""ftp against Debian's vsftpd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from staging_servers import QUICK, incoming, outgoing, same, visible
from staging_services import missing, need_programs, started

from flow_core.errors import StagingError
from flow_core.files import Directory
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.ftp import FTPSeparateTaskStaging

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server():
    need_programs("vsftpd.sh", "vsftpd")
    if os.geteuid() != 0:
        missing("the right to start vsftpd (root)", "vsftpd.sh")
    directory = Path(tempfile.mkdtemp(prefix="flow-vsftpd-"))
    try:
        with started("vsftpd.sh", directory) as (port,):
            yield directory / "root", f"ftp://127.0.0.1:{port}"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def method():
    staging = FTPSeparateTaskStaging(retry=QUICK)
    yield staging
    staging.close()


def test_a_big_file_goes_out_and_comes_back(server, method, tmp_path, big_file):
    root, url = server
    method.stage([outgoing(big_file, f"{url}/pub/new/dir/big")]).result(50)
    method.stage([incoming(f"{url}/pub/new/dir/big", tmp_path / "back")]).result(50)
    assert same(tmp_path / "back", big_file)
    assert visible(root / "pub" / "new") == ["big", "dir"]


@pytest.mark.parametrize(
    "name", ["out#1?.txt", "data[1]*.txt", " two  spaces ", "-rf", "~a", "naïve ☃", "%FF", "x" * 250]
)
def test_a_name_is_a_name(server, method, tmp_path, name):
    root, url = server
    (tmp_path / "a").write_text(name)
    method.stage([outgoing(tmp_path / "a", f"{url}/pub/odd/{name}")]).result(50)
    there = root / "pub" / "odd" / os.fsdecode(unquote_to_bytes(name))
    assert there.read_text() == name
    method.stage([incoming(f"{url}/pub/odd/{name}", tmp_path / "back")]).result(50)
    assert (tmp_path / "back").read_text() == name


def test_an_upload_goes_on_where_it_was_cut(server, method, tmp_path, big_file, monkeypatch):
    root, url = server
    cut_once(monkeypatch, 20 << 20)
    method.stage([outgoing(big_file, f"{url}/pub/cut")]).result(50)
    assert same(root / "pub" / "cut", big_file)
    assert not [name for name in visible(root / "pub") if name.endswith(".part")]


def cut_once(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Break the data connection of the first upload."""
    from flow_staging.ftp_upload import FtpUpload

    begin = FtpUpload._begin
    offsets: list[int] = []

    class Cut:
        def __init__(self, data):
            self.data, self.left = data, after

        def __getattr__(self, name):
            return getattr(self.data, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.data.close()

        def sendall(self, chunk):
            self.left -= len(chunk)
            if self.left < 0:
                raise ConnectionResetError("cut")
            self.data.sendall(chunk)

    def once(self, client, offset):
        offsets.append(offset)
        data = begin(self, client, offset)
        if len(offsets) == 2:
            assert offset > 0
        return Cut(data) if len(offsets) == 1 else data

    monkeypatch.setattr(FtpUpload, "_begin", once)


def test_an_output_replaces_an_older_one(server, method, tmp_path):
    root, url = server
    for content in (b"old", b"new"):
        (tmp_path / "a").write_bytes(content)
        method.stage([outgoing(tmp_path / "a", f"{url}/pub/a")]).result(50)
    assert (root / "pub" / "a").read_bytes() == b"new"


def test_a_missing_file_and_a_forbidden_place_are_named(server, method, tmp_path):
    _, url = server
    with pytest.raises(StagingError, match="550"):
        method.stage([incoming(f"{url}/pub/none", tmp_path / "a")]).result(50)
    (tmp_path / "b").write_bytes(b"x")
    with pytest.raises(StagingError, match="55"):
        method.stage([outgoing(tmp_path / "b", f"{url}/b")]).result(50)
    assert visible(tmp_path) == ["b"]


def test_what_a_killed_try_left_is_removed_by_the_next(server, method, tmp_path):
    root, url = server
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from flow_staging import FTPSeparateTaskStaging
from flow_staging.transfer.retry import Control
from staging_servers import outgoing
seen = []
Control.check = lambda self: seen.append(1) or (len(seen) > 4 and os.kill(os.getpid(), signal.SIGKILL))
FTPSeparateTaskStaging().stage([outgoing(Path({str(tmp_path / "a")!r}), {url + "/pub/killed/a"!r})]).result(40)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == -9
    (left,) = visible(root / "pub" / "killed")
    assert left.startswith(".flow-")
    method.stage([outgoing(tmp_path / "a", f"{url}/pub/killed/a")]).result(50)
    assert visible(root / "pub" / "killed") == ["a"]


def test_directories_go_both_ways_though_the_server_lists_names_only(server, method, tmp_path):
    _root, url = server
    made, found = tmp_path / "made", tmp_path / "found"
    names = ["a[1]*.txt", "deep/er/ 100%.txt", "deep/naïve"]
    for name in names:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    directory = Directory(f"{url}/pub/tree[x]")
    method.stage([Transfer(directory, made, Direction.OUT, 7, "here")]).result(50)
    method.stage([Transfer(directory, found, Direction.IN, 7, "here")]).result(50)
    there = {str(path.relative_to(found)): path.read_text() for path in found.rglob("*") if path.is_file()}
    assert there == {name: name for name in names}
    method.stage([incoming(f"{url}/pub/tree[x]/a[1]*.txt", tmp_path / "one")]).result(50)
    assert (tmp_path / "one").read_text() == "a[1]*.txt"
