"""Files with a digest that the user states: checked by every method, fetched anew once at most."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from staging_servers import QUICK, Page, cut_at, incoming, visible

import flow_core as flow
from flow_core import File
from flow_core.errors import WrongDigest
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File as PlainFile
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Direction, Transfer
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import FTPSeparateTaskStaging, HTTPInTaskStaging, HTTPSeparateTaskStaging, ZipFileStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer

WRONG = "0" * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def transfer(url: str, path: Path, digest: str) -> Transfer:
    return Transfer(PlainFile(url, sha256=digest), path, Direction.IN, 7, "here", "run")


@pytest.fixture
def method():
    staging = HTTPSeparateTaskStaging(retry=QUICK)
    yield staging
    staging.close()


def bring(method, url: str, path: Path, digest: str) -> list[str]:
    return method.stage([transfer(url, path, digest)]).result(50)


def refused(method, web, url: str, path: Path, digest: str = WRONG) -> WrongDigest:
    with pytest.raises(WrongDigest) as caught:
        bring(method, url, path, digest)
    assert caught.value.url == url
    assert url in str(caught.value)
    assert caught.value.expected in str(caught.value)
    assert caught.value.found in str(caught.value)
    assert visible(path.parent) == []
    return caught.value


def test_a_right_file_comes_and_its_digest_is_known(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    assert bring(method, web.url("/a"), tmp_path / "a", sha256(payload)) == [sha256(payload)]
    assert (tmp_path / "a").read_bytes() == payload


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_wrong_file_is_fetched_once_and_not_kept(method, web, tmp_path, payload, etag):
    web.pages["/a"] = Page(payload, etag=etag)
    error = refused(method, web, web.url("/a"), tmp_path / "in" / "a")
    assert error.expected == f"sha256:{WRONG}"
    assert error.found == f"sha256:{sha256(payload)}"
    assert len(web.seen) == 1
    web.pages["/a"] = Page(payload[::-1], etag=etag)
    bring(method, web.url("/a"), tmp_path / "b", sha256(payload[::-1]))
    assert [headers.get("Range") for _, headers in web.seen] == [None, None]  # no end of the wrong one was left


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_what_is_kept_is_found_by_its_digest_without_asking(method, web, tmp_path, payload, etag):
    web.pages["/a"] = Page(payload, etag=etag)
    for number in range(3):
        bring(method, web.url("/a"), tmp_path / str(number), sha256(payload))
    assert len(web.seen) == 1
    assert (tmp_path / "2").read_bytes() == payload


def test_what_was_kept_without_a_digest_is_looked_at(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    method.stage([incoming(web.url("/a"), tmp_path / "first")]).result(50)
    bring(method, web.url("/a"), tmp_path / "second", sha256(payload))
    assert len(web.seen) == 1


def test_a_kept_file_of_another_digest_is_fetched_anew_once(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    method.stage([incoming(web.url("/a"), tmp_path / "first")]).result(50)
    refused(method, web, web.url("/a"), tmp_path / "in" / "a")
    assert len(web.seen) == 2
    web.pages["/a"] = Page(payload[::-1], etag='"v2"')
    bring(method, web.url("/a"), tmp_path / "new", sha256(payload[::-1]))
    assert (tmp_path / "new").read_bytes() == payload[::-1]


def test_a_file_put_together_wrongly_is_fetched_anew_once(method, web, tmp_path, payload):
    page = web.pages["/a"] = Page(payload[::-1])
    right = payload

    def end(handler, start, status):
        page.body = right  # under the ETag of the other
        return False

    page.plan.extend([cut_at(1_500_000), end])
    bring(method, web.url("/a"), tmp_path / "a", sha256(right))
    assert (tmp_path / "a").read_bytes() == right
    assert [headers.get("Range") for _, headers in web.seen] == [None, "bytes=1500000-", None]


def test_the_digest_is_looked_at_on_the_node_too(web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    method = HTTPInTaskStaging(retry=QUICK)
    where = NodeContext(executor="here", working_dir=str(tmp_path))
    step = method.step([transfer(web.url("/a"), Path("in/a"), WRONG)])
    with pytest.raises(WrongDigest):
        step.run(lambda: None, where)
    right = method.step([transfer(web.url("/a"), Path("in/a"), sha256(payload))])
    assert right.run(lambda: (tmp_path / "in" / "a").read_bytes(), where) == payload
    method.close()


# -- through a loaded kernel


@flow.python_app
def read(file):
    with open(file) as stream:
        return stream.read()


@flow.python_app
def write(text, outputs=()):
    with open(outputs[0], "w") as stream:
        stream.write(text)


METHODS = [
    NoOpFileStaging(),
    ZipFileStaging(),
    HTTPSeparateTaskStaging(retry=QUICK),
    FTPSeparateTaskStaging(retry=QUICK),
]
MANY = {"threads": ThreadPoolExecutor(label="threads", storage_access=METHODS)}


@pytest.fixture(params=["threads", "htex"])
def loaded(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executor = (
        MANY["threads"]
        if request.param == "threads"
        else HighThroughputExecutor(
            label="htex", max_workers=1, provider=LocalProvider(init_blocks=1, max_blocks=1), storage_access=METHODS
        )
    )
    with flow.load(flow.Config(executors=[executor])):
        yield tmp_path


@pytest.mark.timeout(120)
def test_inputs_of_every_method_are_looked_at(loaded, web):
    text = b"some text"
    (loaded / "root").mkdir()
    (loaded / "root" / "a").write_bytes(text)
    (loaded / "local").write_bytes(text)
    with zipfile.ZipFile(loaded / "a.zip", "w") as archive:
        archive.writestr("a", text)
    web.pages["/a"] = Page(text)
    ftp = FtpServer(loaded / "root")
    for url in ("local", str(loaded / "local"), f"zip:{loaded}/a.zip/a", web.url("/a"), ftp.url("/a")):
        for digest in (f"sha256:{sha256(text)}", f"md5:{hashlib.md5(text).hexdigest()}"):
            assert read(File(url, digest=digest)).result(60) == "some text", url
        error = read(File(url, sha256=WRONG)).exception(60)
        assert isinstance(error, WrongDigest), (url, error)
        assert (error.expected, error.found) == (f"sha256:{WRONG}", f"sha256:{sha256(text)}")
        assert url in str(error)
        assert "task" in str(error)
    ftp.close()


@pytest.mark.timeout(120)
def test_one_url_with_two_digests_in_one_task_fails(loaded, web):
    web.pages["/a"] = Page(b"some text")

    @flow.python_app
    def both(files):
        return len(files)

    right, wrong = (File(web.url("/a"), sha256=digest) for digest in (sha256(b"some text"), WRONG))
    assert both([right, right]).result(60) == 2
    for files in ([right, wrong], [wrong, right]):
        assert isinstance(both(files).exception(60), WrongDigest)


@pytest.mark.timeout(120)
def test_an_output_of_another_digest_is_none(loaded):
    Path("out").write_text("older")
    (loaded / "root").mkdir()
    ftp = FtpServer(loaded / "root")
    good = sha256(b"made")
    for url in ("out", "zip:new.zip/out", ftp.url("/out")):
        future = write("bad", outputs=[File(url, sha256=good)])
        assert isinstance(future.exception(60), WrongDigest), url
    assert Path("out").read_text() == "older"
    assert not Path("new.zip").exists()
    assert list((loaded / "root").iterdir()) == []
    for url in ("out", "zip:new.zip/out", ftp.url("/out")):
        assert write("made", outputs=[File(url, sha256=good)]).outputs[0].result(60).digest == f"sha256:{good}"
    assert Path("out").read_text() == "made"
    ftp.close()


@pytest.mark.timeout(60)
def test_a_digest_is_part_of_what_is_remembered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @flow.python_app(cache=True)
    def size(file):
        with open("journal", "a") as stream:
            stream.write(f"{file.digest}\n")
        return Path(file).stat().st_size

    Path("a").write_text("made")
    good = sha256(b"made")
    with flow.load(flow.Config(executors=[ThreadPoolExecutor()])):
        for digest in (None, good, good, None):
            assert size(File("a", sha256=digest)).result(30) == 4
        assert isinstance(size(File("a", sha256=WRONG)).exception(30), WrongDigest)
    assert Path("journal").read_text().split() == ["None", f"sha256:{good}"]
