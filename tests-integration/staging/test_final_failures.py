"""What another try could not change: the call is refused, or its task fails at once, whatever ``retries`` says."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
from staging_servers import Page, answer

import flow_core as flow
from flow_core.errors import NoStagingError, StagingError, WrongDigest
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import (
    FTPSeparateTaskStaging,
    GlobusStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    S3Staging,
    ZipFileStaging,
)
from flow_staging.transfer.retry import RetryPolicy

ONCE = RetryPolicy(tries=1)
pytestmark = pytest.mark.timeout(60)


@flow.python_app
def text_of(inputs: Any = (), outputs: Any = ()) -> str:
    return Path(inputs[0]).read_text()


def run(tmp_path: Path, *methods: Any) -> Any:
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), *methods], working_dir=str(tmp_path / "wd"))
    return flow.load(flow.Config(executors=[executor], retries=3, run_dir=str(tmp_path / "runinfo")))


@pytest.mark.parametrize("kind", [HTTPSeparateTaskStaging, HTTPInTaskStaging])
def test_a_file_that_is_not_there_is_asked_for_once_and_one_that_may_come_again_and_again(web, tmp_path, kind):
    web.pages["/busy"] = Page(b"", plan=deque([answer(503)] * 20))
    with run(tmp_path, kind(retry=ONCE)):
        gone, busy = (text_of(inputs=[File(web.url(path))]).exception(50) for path in ("/gone", "/busy"))
    assert (gone.final, busy.final) == (True, False)
    asked = [path for path, *_ in web.seen]
    assert (asked.count("/gone"), asked.count("/busy")) == (1, 4)


@pytest.mark.parametrize("kind", [HTTPSeparateTaskStaging, HTTPInTaskStaging])
def test_an_input_of_another_digest_is_fetched_for_one_try(web, tmp_path, kind):
    web.pages["/a"] = Page(b"text")
    with run(tmp_path, kind(retry=ONCE)):
        error = text_of(inputs=[File(web.url("/a"), sha256="0" * 64)]).exception(50)
    assert isinstance(error, WrongDigest)
    assert error.final
    assert len(web.seen) == 1


def test_a_local_input_of_another_digest_is_read_for_one_try(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("text")
    with flow.load(flow.Config(retries=3)):
        future = text_of(inputs=[File("a", sha256="0" * 64)])
        assert isinstance(future.exception(50), WrongDigest)
        assert future.exception().final


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host/a#b", "'#b' would not be sent to the server: write '%23'"),
        ("https://host/a?x=1#", "'#' would not be sent"),
        ("ftp://host", "an ftp URL has the form"),
        ("ftp://host/dir/", "an ftp URL has the form"),
        ("s3://bucket", "an s3 URL has the form s3://bucket/key"),
        ("zip:a.zip/../b", "empty parts"),
        ("zip:archive", "a zip URL has the form"),
        ("globus://host/a", "a globus URL has the form"),
        ("globus://7d2dc622-2edb-11e8-b8be-0ac6873fc732/../a", r"'\.\.' is not allowed"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_by_the_call(tmp_path, url, said):
    methods = (
        HTTPSeparateTaskStaging(upload=True),
        FTPSeparateTaskStaging(),
        S3Staging(),
        ZipFileStaging(),
        GlobusStaging("7d2dc622-2edb-11e8-b8be-0ac6873fc732"),
    )
    with run(tmp_path, *methods):
        for given in ({"inputs": [File(url)]}, {"inputs": [], "outputs": [File(url)]}):
            with pytest.raises(NoStagingError, match=said):
                text_of(**given)


def test_a_directory_of_a_web_server_is_refused_by_the_call_with_what_to_do(tmp_path):
    with (
        run(tmp_path, HTTPSeparateTaskStaging()),
        pytest.raises(NoStagingError, match="Web servers do not say which files there are"),
    ):
        text_of(inputs=[Directory("http://host/dir")])


def test_a_missing_member_of_an_archive_is_looked_for_once(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("x", "x")
    looked: list[str] = []
    real = zipfile.ZipFile.getinfo

    def getinfo(self: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        looked.append(name)
        return real(self, name)

    monkeypatch.setattr(zipfile.ZipFile, "getinfo", getinfo)
    with run(tmp_path, ZipFileStaging()):
        error = text_of(inputs=[File("zip:a.zip/y")]).exception(50)
    assert isinstance(error, StagingError)
    assert looked == ["y"]
