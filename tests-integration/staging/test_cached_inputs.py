"""Cached calls whose inputs are on servers: found again as long as the version is the one that was read."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from staging_servers import QUICK, Page, do

import flow_core as flow
from flow_core import Directory, File
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import (
    CachePolicy,
    FTPInTaskStaging,
    FTPSeparateTaskStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    S3Staging,
    ZipFileStaging,
)
from flow_staging.http import HttpMover

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

pytestmark = pytest.mark.timeout(120)


@flow.python_app(cache=True)
def read(file, journal):
    with open(journal, "a") as stream:
        stream.write("x")
    with open(file) as stream:
        return stream.read()


@flow.python_app(cache=True)
def read_again(file, journal):
    with open(journal, "a") as stream:
        stream.write("y")
    with open(file) as stream:
        return stream.read()


@flow.python_app
def read_uncached(file):
    with open(file) as stream:
        return stream.read()


@flow.python_app(cache=True)
def read_all(directory, journal):
    from pathlib import Path

    with open(journal, "a") as stream:
        stream.write("x")
    return {str(path.relative_to(directory)): path.read_text() for path in Path(directory).rglob("*") if path.is_file()}


class Runs:
    """Runs of one script, each of which loads what those before remembered."""

    def __init__(self, folder: Path, *methods: object, on_nodes: bool = False) -> None:
        self.journal = folder / "journal"
        self.journal.touch()
        self._folder = folder
        self._methods = [NoOpFileStaging(), *methods]
        self._on_nodes = on_nodes
        self._checkpoints: list[str] = []

    def load(self):
        if self._on_nodes:
            provider = LocalProvider(init_blocks=1, max_blocks=1)
            executor = HighThroughputExecutor("here", provider, max_workers=1, storage_access=self._methods)
        else:
            executor = ThreadPoolExecutor("here", storage_access=self._methods)
        kernel = flow.load(
            flow.Config(
                executors=[executor],
                run_dir=str(self._folder / "runinfo"),
                checkpoint_mode="task_exit",
                checkpoint_files=list(self._checkpoints),
            )
        )
        self._checkpoints.append(str(kernel.run_dir))
        return kernel

    @property
    def count(self) -> int:
        return len(self.journal.read_text())


@pytest.fixture
def looks(monkeypatch) -> Counter[str]:
    """Count the questions for versions, by URLs."""
    asked: Counter[str] = Counter()
    look = HttpMover.look

    def counted(self, file, control):
        asked[file.url] += 1
        return look(self, file, control)

    monkeypatch.setattr(HttpMover, "look", counted)
    return asked


def http(kind: str, **options: object):
    make = HTTPInTaskStaging if kind == "nodes" else HTTPSeparateTaskStaging
    return make(retry=QUICK, **options)


@pytest.mark.parametrize("kind", ["threads", "nodes"])
def test_a_file_on_a_web_server_counts_by_its_version(kind, web, tmp_path, monkeypatch, looks):
    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http(kind), on_nodes=kind == "nodes"), web.url("/a")
    for text, count in (("one", 1), ("one", 1), ("two", 2), ("one", 2), ("two", 2)):
        web.pages["/a"] = Page(text.encode(), f'"{text}"')
        looks.clear()
        with runs.load():
            futures = [read(File(url), str(runs.journal)) for _ in range(3)]
            assert {future.result(60) for future in futures} == {text}
            assert read(File(url), str(runs.journal)).result(60) == text
        assert runs.count == count
        assert looks == {url: 1}


@pytest.mark.parametrize("kind", ["threads", "nodes"])
def test_what_counts_is_the_version_that_a_run_sees_whatever_the_server_has_by_now(kind, web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http(kind), on_nodes=kind == "nodes"), web.url("/a")
    web.pages["/a"] = Page(b"one", '"one"')
    with runs.load():
        assert read_uncached(File(url)).result(60) == "one"
        web.pages["/a"] = Page(b"two", '"two"')  # which this run does not see, though a look does
        for _ in range(2):
            assert read(File(url), str(runs.journal)).result(60) == "one"
    assert runs.count == 1  # it was remembered as the result of what was read
    for text, count in (("two", 3), ("two", 3), ("one", 4)):
        web.pages["/a"] = Page(text.encode(), f'"{text}"')
        with runs.load():
            assert read(File(url), str(runs.journal)).result(60) == text
            assert read_again(File(url), str(runs.journal)).result(60) == text
        assert runs.count == count


def test_a_version_that_comes_between_the_look_and_the_transfer_is_no_wrong_answer(web, tmp_path, monkeypatch, looks):
    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http("threads")), web.url("/a")
    web.pages["/a"] = Page(b"one", '"one"')

    def change() -> None:
        web.pages["/a"].body, web.pages["/a"].etag = b"two", '"two"'

    web.pages["/a"].plan.append(do(change))
    with runs.load():
        futures = [read(File(url), str(runs.journal)) for _ in range(3)]  # identical, as far as anybody knows
        assert [future.result(60) for future in futures] == ["two"] * 3
        ran = runs.count
        assert read(File(url), str(runs.journal)).result(60) == "two"  # by now it is known what this run reads
        assert runs.count == ran
        assert looks[url] == 1
    web.pages["/a"] = Page(b"one", '"one"')
    with runs.load():
        assert read(File(url), str(runs.journal)).result(60) == "one"
    assert runs.count == ran + 1


def test_a_server_that_answers_no_looks_tells_the_version_with_the_file(web, tmp_path, monkeypatch):
    """So it is with URLs that are signed for GET alone."""
    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http("threads")), web.url("/a")
    monkeypatch.setattr(HttpMover, "look", lambda *_given: None)
    for text, count in (("one", 2), ("two", 4), ("one", 5)):
        web.pages["/a"] = Page(text.encode(), f'"{text}"')
        with runs.load():
            for app in (read, read_again):
                assert app(File(url), str(runs.journal)).result(60) == text
        assert runs.count == count  # of each run the first call runs, the others know the version


def test_files_of_which_each_task_asks_anew_are_looked_at_by_each(web, tmp_path, monkeypatch, looks):
    monkeypatch.chdir(tmp_path)
    runs, file = Runs(tmp_path, http("threads")), File(web.url("/a"), refresh="task")
    with runs.load():
        for text, count in (("one", 1), ("two", 2), ("one", 2), ("two", 2)):
            web.pages["/a"] = Page(text.encode(), f'"{text}"')
            assert read(file, str(runs.journal)).result(60) == text
            assert runs.count == count
    assert looks == {file.url: 4}


@pytest.mark.parametrize("cache", [None, CachePolicy(refresh="task")], ids=["no cache", "task"])
def test_the_method_says_how_often_it_asks(cache, web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http("threads", cache=cache)), web.url("/a")
    with runs.load():
        for text, count in (("one", 1), ("two", 2), ("one", 2)):
            web.pages["/a"] = Page(text.encode(), f'"{text}"')
            assert read(File(url), str(runs.journal)).result(60) == text
            assert runs.count == count


def test_what_is_never_asked_for_again_counts_by_its_name(web, tmp_path, monkeypatch, looks):
    monkeypatch.chdir(tmp_path)
    runs, file = Runs(tmp_path, http("threads")), File(web.url("/a"), refresh="never")
    for text in ("one", "two"):
        web.pages["/a"] = Page(text.encode(), f'"{text}"')
        with runs.load():
            assert read(file, str(runs.journal)).result(60) == "one"
    assert runs.count == 1
    assert not looks


@pytest.mark.parametrize("announce", [True, False])
def test_what_a_server_sends_without_naming_a_version_is_not_remembered(announce, web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http("threads")), web.url("/a")
    web.pages["/a"] = Page(b"one", None)
    web.pages["/a"].announce = announce
    for number in range(2):
        with runs.load() as kernel:
            assert read(File(url), str(runs.journal)).result(60) == "one"
        assert "which version was read cannot be told" in (kernel.run_dir / "flow.log").read_text()
        assert runs.count == number + 1


def test_files_to_which_redirects_lead_are_told_apart_though_they_have_one_etag(web, tmp_path, monkeypatch):
    from staging_servers import answer

    monkeypatch.chdir(tmp_path)
    runs, url = Runs(tmp_path, http("threads", cache=None)), web.url("/current")
    web.pages["/one"], web.pages["/two"] = Page(b"one", '"same"'), Page(b"two", '"same"')
    web.pages["/current"] = Page(b"", None)
    for name, count in (("one", 1), ("two", 2), ("one", 3)):
        web.pages["/current"].plan.append(answer(302, Location=web.url(f"/{name}")))
        with runs.load():
            assert read(File(url), str(runs.journal)).result(60) == name
        assert runs.count == count


@pytest.mark.parametrize("in_task", [False, True])
def test_files_on_ftp_servers(in_task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    server = FtpServer(root)
    runs = Runs(tmp_path, (FTPInTaskStaging if in_task else FTPSeparateTaskStaging)(retry=QUICK))
    try:
        for date, text, count in ((1, "one", 1), (1, "one", 1), (2, "two", 2), (1, "one", 2)):
            (root / "a").write_text(text)
            os.utime(root / "a", (1_000_000_000 + date,) * 2)
            with runs.load():
                assert read(File(server.url("/a")), str(runs.journal)).result(60) == text
            assert runs.count == count
    finally:
        server.close()


def test_members_of_archives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = Runs(tmp_path, ZipFileStaging())
    with runs.load():
        for text, count in (("one", 1), ("two", 2), ("one", 2)):
            with zipfile.ZipFile("a.zip", "w") as archive:
                archive.writestr("member", text)
            assert read(File("zip:a.zip/member"), str(runs.journal)).result(60) == text
            assert runs.count == count


@pytest.mark.services
@pytest.mark.parametrize("in_task", [False, True])
def test_objects_in_buckets_and_directories_of_them(in_task, moto, s3_login, tmp_path, monkeypatch):
    import boto3

    monkeypatch.chdir(tmp_path)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}")
    client.create_bucket(Bucket="inputs")
    runs = Runs(tmp_path, S3Staging(endpoint_url=f"http://127.0.0.1:{moto}", in_task=in_task, retry=QUICK))
    for text, count in (("one", 2), ("one", 2), ("two", 4), ("one", 4)):
        for name in ("d/a", "d/below/b"):
            client.put_object(Bucket="inputs", Key=name, Body=(text + name).encode())
        with runs.load():
            assert read(File("s3://inputs/d/a"), str(runs.journal)).result(60) == text + "d/a"
            listed = read_all(Directory("s3://inputs/d"), str(runs.journal)).result(60)
            assert listed == {"a": text + "d/a", "below/b": text + "d/below/b"}
        assert runs.count == count
    client.close()
