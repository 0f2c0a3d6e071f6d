"""File systems that tell no capitals from small letters, as those of Windows servers: no file takes another's place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from staging_ftp import FtpServer
from staging_servers import QUICK, Page, WebServer, incoming
from staging_services import missing, need_modules

import flow_core as flow
from flow_core import Directory, File
from flow_core.errors import OutputConflict, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import FTPSeparateTaskStaging, HTTPSeparateTaskStaging, S3Staging

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    need_modules("folding_disk.sh", "fuse")
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        missing("FUSE for root", "folding_disk.sh")
    behind, path = tmp_path / "behind", tmp_path / "disk"
    behind.mkdir()
    path.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("folding_disk.py")), str(behind), str(path)]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(path):
            if server.poll() is not None:
                missing(f"a FUSE file system ({server.stderr.read()})", "folding_disk.sh")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield path
    finally:
        if os.path.ismount(path):
            subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)
        server.terminate()
        server.wait(20)
        server.stderr.close()


@flow.python_app
def contents(inputs=()):
    return [Path(each).read_text() for each in inputs]


@flow.python_app
def write(go=None, outputs=()):
    assert go is None or go.wait(60)
    for number, each in enumerate(outputs):
        Path(each).write_text(str(number))


def loaded(disk: Path, *methods: object, **options: object) -> flow.DataFlowKernel:
    executor = ThreadPoolExecutor(working_dir=str(disk / "wd"), storage_access=[*methods, NoOpFileStaging()])
    return flow.load(flow.Config(executors=[executor], run_dir=str(disk.parent / "runinfo"), **options))


def test_the_disk_folds(disk):
    (disk / "Name").write_text("one")
    (disk / "nAME").write_text("two")
    assert (os.listdir(disk), (disk / "Name").read_text()) == (["Name"], "two")


@pytest.mark.parametrize("names", [("data.txt", "DATA.TXT", "Data.txt"), ("é.txt", "É.txt")])
def test_inputs_of_a_task_whose_names_differ_in_capitals_only_are_files_of_their_own(web, disk, names):
    urls = []
    for number, name in enumerate(names):
        urls.append(web.url(f"/{number}/{name}"))
        web.pages[f"/{number}/{_quoted(name)}"] = Page(str(number).encode(), etag=f'"{number}"')
    with loaded(disk, HTTPSeparateTaskStaging(retry=QUICK)):
        assert contents(inputs=[File(url) for url in urls]).result(60) == [str(n) for n in range(len(names))]


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


def test_outputs_of_a_task_whose_names_differ_in_capitals_only_are_files_of_their_own(ftp: FtpServer, disk):
    (ftp.root / "a").mkdir()
    (ftp.root / "b").mkdir()
    with loaded(disk, FTPSeparateTaskStaging(retry=QUICK)):
        future = write(outputs=[File(ftp.url("/a/out.txt")), File(ftp.url("/b/OUT.txt"))])
        for output in future.outputs:
            output.result(60)
    assert ((ftp.root / "a/out.txt").read_text(), (ftp.root / "b/OUT.txt").read_text()) == ("0", "1")


def test_a_cache_on_such_a_disk_keeps_files_apart_and_finds_them_again(web: WebServer, disk, monkeypatch):
    monkeypatch.setenv("FLOW_CACHE", str(disk / "cache"))
    web.pages["/a.txt"], web.pages["/A.TXT"] = Page(b"small"), Page(b"large")
    for _ in range(2):
        with loaded(disk, HTTPSeparateTaskStaging(retry=QUICK)):
            found = contents(inputs=[File(web.url("/a.txt")), File(web.url("/A.TXT"))]).result(60)
            assert found == ["small", "large"]
    asked = [headers.get("If-None-Match") for _, headers in web.seen]
    assert asked == [None, None, '"v1"', '"v1"']


def test_a_directory_with_two_files_that_are_one_here_is_refused_and_comes_elsewhere(moto, s3_login, disk, tmp_path):
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}")
    client.create_bucket(Bucket="folding")
    for key in ("d/x/Read.me", "d/x/READ.me", "d/other"):
        client.put_object(Bucket="folding", Key=key, Body=key.encode())
    client.close()
    method = S3Staging(endpoint_url=f"http://127.0.0.1:{moto}", retry=QUICK)
    try:
        transfer = incoming("s3://folding/d", disk / "d")
        directory = type(transfer)(Directory("s3://folding/d"), disk / "d", transfer.direction, 7, "here")
        with pytest.raises(StagingError, match=r"x/READ\.me' and 'x/Read\.me' in it are one file.*working_dir"):
            method.stage([directory]).result(60)
        assert not any(path.is_file() for path in disk.rglob("*"))
        elsewhere = type(transfer)(Directory("s3://folding/d"), tmp_path / "d", transfer.direction, 7, "here")
        method.stage([elsewhere]).result(60)
        assert sorted(path.name for path in (tmp_path / "d" / "x").iterdir()) == ["READ.me", "Read.me"]
    finally:
        method.close()


def test_tasks_whose_outputs_are_one_file_there_are_refused_and_elsewhere_they_are_not(disk, tmp_path):
    with loaded(disk, output_conflicts="refuse"):
        go = threading.Event()
        first = write(go, outputs=[File(str(disk / "out/Table"))])
        with pytest.raises(OutputConflict, match=r"TABLE.*which is .*Table on that file system"):
            write(outputs=[File(str(disk / "OUT/TABLE"))])
        go.set()
        first.result(60)
        with pytest.raises(OutputConflict, match="twice"):
            write(outputs=[File(str(disk / "one")), File(str(disk / "ONE"))])
        write(outputs=[File(str(tmp_path / "one")), File(str(tmp_path / "ONE"))]).result(60)
    assert ((tmp_path / "one").read_text(), (tmp_path / "ONE").read_text()) == ("0", "1")
