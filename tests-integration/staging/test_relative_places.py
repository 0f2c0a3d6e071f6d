"""Relative to what? Every method on every kind of executor, with every way of writing its working directory."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from staging_moto import moto_server
from staging_servers import QUICK, Page
from staging_services import need_modules, need_programs, started

import flow_core as flow
from flow_core import File
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.staging import Staging
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers import LocalProvider
from flow_staging import (
    FTPInTaskStaging,
    FTPSeparateTaskStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    RSyncStaging,
    S3Staging,
    ZipFileStaging,
)

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(120)]

TEXT = "some text\n" * 10_000  # enough for the cache to keep it
HERE = "submit side"
NODE = "node"


@flow.python_app
def through(inputs=(), outputs=()):
    with open(inputs[0]) as source:
        text = source.read()
    for output in outputs:
        with open(output, "w") as target:
            target.write(text.upper())
    return len(text), [os.path.realpath(file) for file in (*inputs, *outputs)], os.getcwd()


@dataclass
class Others:
    """The other sides: URLs to read, and URLs to write with what is found there then."""

    home: Path
    web: object
    ftp: FtpServer
    moto: int
    rsync: tuple[str, str]

    def methods(self, side: str) -> list[Staging]:
        s3 = partial(S3Staging, endpoint_url=f"http://127.0.0.1:{self.moto}", retry=QUICK)
        if side == HERE:
            moving = [HTTPSeparateTaskStaging(retry=QUICK), FTPSeparateTaskStaging(retry=QUICK), ZipFileStaging(), s3()]
            return [NoOpFileStaging(), *moving]
        rsync = RSyncStaging(self.rsync[0], ssh=self.rsync[1], retry=QUICK)
        return [rsync, HTTPInTaskStaging(retry=QUICK), FTPInTaskStaging(retry=QUICK), s3(in_task=True)]

    def inputs(self, side: str) -> list[str]:
        own = [f"zip:{self.home}/in.zip/in.txt"] if side == HERE else [str(self.home / "in.txt")]
        return [self.web.url("/in.txt"), self.ftp.url("/in.txt"), "s3://bucket/in.txt", *own]

    def outputs(self, side: str) -> list[str]:
        own = [f"zip:{self.home}/out.zip/out.txt"] if side == HERE else [str(self.home / "out.txt")]
        return [self.ftp.url("/out.txt"), "s3://bucket/out.txt", *own]

    def arrived(self, side: str, client) -> list[str]:
        if side == HERE:
            with zipfile.ZipFile(self.home / "out.zip") as archive:
                own = archive.read("out.txt").decode()
        else:
            own = (self.home / "out.txt").read_text()
        s3 = client.get_object(Bucket="bucket", Key="out.txt")["Body"].read().decode()
        return [(self.ftp.root / "out.txt").read_text(), s3, own]


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[tuple[int, tuple[str, str]]]:
    need_programs("rsync.sh", "rsync", "sshd", "ssh")
    need_modules("moto.sh", "moto", "boto3", "flask")
    directory = Path(tempfile.mkdtemp(prefix="flow-rsync-"))
    try:
        with (
            moto_server(tmp_path_factory.mktemp("moto") / "log") as port,
            started("rsync.sh", directory) as (address, ssh_port, key, known, user),
        ):
            ssh = f"ssh -F none -p {ssh_port} -i {key} -o UserKnownHostsFile={known}"
            yield port, (f"{user}@{address}", ssh)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def others(services, web, tmp_path, monkeypatch) -> Iterator[Others]:
    home = tmp_path / "others"
    (home / "ftp").mkdir(parents=True)
    (home / "ftp" / "in.txt").write_text(TEXT)
    (home / "in.txt").write_text(TEXT)
    web.pages["/in.txt"] = Page(TEXT.encode())
    with zipfile.ZipFile(home / "in.zip", "w") as archive:
        archive.writestr("in.txt", TEXT)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    ftp = FtpServer(home / "ftp")
    yield Others(home, web, ftp, *services)
    ftp.close()


@pytest.fixture
def bucket(others):
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{others.moto}")
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="in.txt", Body=TEXT.encode())
    client.delete_object(Bucket="bucket", Key="out.txt")
    yield client
    client.close()


@pytest.fixture
def script(tmp_path, monkeypatch) -> Path:
    """The directory in which the script is when it loads its configuration."""
    folder = tmp_path / "script"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def threads(label: str, working_dir: str | None, methods: list[Staging]) -> Executor:
    return ThreadPoolExecutor(label, max_threads=4, storage_access=methods, working_dir=working_dir)


def pool(label: str, working_dir: str | None, methods: list[Staging]) -> Executor:
    made = FuturesExecutor(label, partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn")))
    made.storage_access, made.working_dir = methods, working_dir
    return made


def htex(label: str, working_dir: str | None, methods: list[Staging]) -> Executor:
    one = LocalProvider(init_blocks=1, max_blocks=1)
    return HighThroughputExecutor(label, one, max_workers=2, storage_access=methods, working_dir=working_dir)


def llex(label: str, working_dir: str | None, methods: list[Staging]) -> Executor:
    one = LocalProvider(init_blocks=1, max_blocks=1)
    return LowLatencyExecutor(label, one, max_workers=2, storage_access=methods, working_dir=working_dir)


SPELLINGS = {
    "none": lambda script: None,
    "relative": lambda script: "wd/deep",
    "dotted": lambda script: "./x/../wd/deep/.",
    "absolute": lambda script: str(script / "wd" / "deep"),
    "linked": lambda script: "link",
}


@pytest.mark.parametrize("side", [HERE, NODE])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", [threads, pool, htex, llex], ids=lambda kind: kind.__name__)
def test_files_of_every_method_are_where_the_app_is_told(kind, spelling, side, others, bucket, script):
    (script / "wd" / "deep").mkdir(parents=True)
    (script / "x").mkdir()
    (script / "link").symlink_to("wd/deep")
    working_dir = SPELLINGS[spelling](script)
    executor = kind("there", working_dir, others.methods(side))
    config = flow.Config(executors=[executor], run_dir=str(script / "runinfo"), initialize_logging=False)
    with flow.load(config):
        each = [through(inputs=[File(url)]) for url in others.inputs(side)]
        every = through(
            inputs=[File(url) for url in others.inputs(side)], outputs=[File(u) for u in others.outputs(side)]
        )
        mine = through(inputs=[File(others.web.url("/in.txt"), local_path="chosen/mine.txt")])
        results = [future.result(100) for future in (*each, every)]
        chosen = Path(mine.result(100)[1][0])
        for output in every.outputs:
            output.result(100)
    assert others.arrived(side, bucket) == [TEXT.upper()] * 3
    for length, places, where in results:
        assert length == len(TEXT)
        root = script / "wd" / "deep"
        if working_dir is None:
            root = script / "runinfo" if side == HERE else Path(where)
        assert all(Path(place).is_relative_to(root.resolve()) for place in places), places
    assert chosen == (script if working_dir is None else script / "wd" / "deep").resolve() / "chosen" / "mine.txt"
    assert chosen.read_text() == TEXT


@pytest.mark.parametrize("kind", [threads, pool, htex], ids=lambda kind: kind.__name__)
def test_what_the_submit_side_moves_lies_where_the_script_was_wherever_script_and_worker_go(
    kind, others, bucket, script, tmp_path
):
    executor = kind("there", "wd", others.methods(HERE))
    if kind is htex:
        (tmp_path / "elsewhere").mkdir()
        executor.provider.worker_init = f"cd {tmp_path / 'elsewhere'}"
    config = flow.Config(executors=[executor], run_dir=str(script / "runinfo"), initialize_logging=False)
    with flow.load(config):
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            os.chdir(tmp_path / folder)
            future = through(inputs=[File(others.web.url("/in.txt"))], outputs=[File(others.ftp.url("/out.txt"))])
            places = future.result(100)[1]
            future.outputs[0].result(100)
            assert all(Path(place).is_relative_to((script / "wd").resolve()) for place in places), places
            assert (others.ftp.root / "out.txt").read_text() == TEXT.upper()
            (others.ftp.root / "out.txt").unlink()


@flow.python_app(executors=["gate"])
def wait_for(event):
    event.wait(100)


@flow.python_app(executors=["there"])
def through_after(_, inputs=(), outputs=()):
    with open(inputs[0]) as source, open(outputs[0], "w") as target:
        target.write(source.read().upper())


@pytest.mark.parametrize("working_dir", ["wd", None])
@pytest.mark.parametrize("side", [HERE, NODE])
def test_a_relative_name_means_a_file_where_the_script_was_when_it_called(
    side, working_dir, others, bucket, script, tmp_path
):
    there, gate = threads("there", working_dir, others.methods(side)), ThreadPoolExecutor("gate", max_threads=1)
    config = flow.Config(executors=[there, gate], run_dir=str(script / "runinfo"), initialize_logging=False)
    names = ("zip:in.zip/in.txt", "zip:out.zip/out.txt") if side == HERE else ("in.txt", "out.txt")
    with flow.load(config):
        event = threading.Event()
        os.chdir(others.home)
        made = through_after(wait_for(event), inputs=[File(names[0])], outputs=[File(names[1])])
        os.chdir(tmp_path)
        event.set()
        made.outputs[0].result(100)
    if side == HERE:
        with zipfile.ZipFile(others.home / "out.zip") as archive:
            assert archive.read("out.txt").decode() == TEXT.upper()
    else:
        assert (others.home / "out.txt").read_text() == TEXT.upper()
