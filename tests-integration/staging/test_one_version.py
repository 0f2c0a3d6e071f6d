"""Nodes with caches of their own see one version of a file within a run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from staging_servers import QUICK, Page

import flow_core as flow
from flow_core.errors import StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import FTPInTaskStaging, FTPSeparateTaskStaging, HTTPInTaskStaging, S3Staging
from flow_staging.transfer.cache import CachePolicy

pytestmark = pytest.mark.timeout(90)
entered, go_on = threading.Event(), threading.Event()


@flow.python_app
def read(inputs: Any = ()) -> str:
    return Path(inputs[0]).read_text()


@flow.python_app
def read_and_wait(inputs: Any = ()) -> str:
    text = Path(inputs[0]).read_text()
    entered.set()
    assert go_on.wait(60)
    return text


@flow.python_app
def read_and_fail(flag: str, inputs: Any = ()) -> str:
    text = Path(inputs[0]).read_text()
    if not Path(flag).exists():
        Path(flag).touch()
        raise RuntimeError("the first try fails")
    return text


@pytest.fixture(autouse=True)
def events():
    entered.clear()
    go_on.clear()
    yield
    go_on.set()


def nodes(tmp_path: Path, make: Any, **options: Any) -> Any:
    """A run with two nodes, each with a disk and a cache of its own."""
    executors = [
        ThreadPoolExecutor(
            label=name,
            working_dir=str(tmp_path / name),
            storage_access=[NoOpFileStaging(), make(CachePolicy(directory=str(tmp_path / f"{name}-cache")))],
        )
        for name in ("one", "two")
    ]
    return flow.load(flow.Config(executors=executors, run_dir=str(tmp_path / "runinfo"), **options))


def http(cache: CachePolicy) -> HTTPInTaskStaging:
    return HTTPInTaskStaging(retry=QUICK, cache=cache)


def on(node: str, app: Any, *args: Any, inputs: Any) -> Any:
    return app.options(executors=[node])(*args, inputs=inputs)


def test_another_node_is_given_the_same_version_or_an_error_that_says_so(web, tmp_path):
    file = File(web.url("/a"))
    web.pages["/a"] = Page(b"first", etag='"v1"')
    with nodes(tmp_path, http):
        assert on("one", read, inputs=[file]).result(60) == "first"
        web.pages["/a"] = Page(b"second", etag='"v2"')
        error = on("two", read, inputs=[file]).exception(60)
        assert isinstance(error, StagingError)
        for part in ("/a", "'\"v2\"' by now", "'\"v1\"', which is not kept here", "refresh='task'"):
            assert part in str(error)
        assert on("one", read, inputs=[file]).result(60) == "first"  # from what it has kept
        assert on("two", read, inputs=[File(file.url, refresh="task")]).result(60) == "second"
        web.pages["/a"] = Page(b"first", etag='"v1"')
        assert on("two", read, inputs=[file]).result(60) == "first"  # though it has kept the second
    web.pages["/a"] = Page(b"second", etag='"v2"')
    with nodes(tmp_path, http):  # another run sees what there is then
        assert [on(node, read, inputs=[file]).result(60) for node in ("two", "one")] == ["second"] * 2


def test_of_two_nodes_that_began_at_once_with_different_versions_the_second_fails(web, tmp_path):
    file = File(web.url("/a"))
    web.pages["/a"] = Page(b"first", etag='"v1"')
    with nodes(tmp_path, http):
        late = on("one", read_and_wait, inputs=[file])
        assert entered.wait(60)
        web.pages["/a"] = Page(b"second", etag='"v2"')
        assert on("two", read, inputs=[file]).result(60) == "second"
        go_on.set()
        with pytest.raises(StagingError, match=r"/a in the version '\"v1\"', and other tasks of the run in .*v2"):
            late.result(60)


def test_a_try_that_fails_tells_its_version_to_the_next_on_another_node(web, tmp_path):
    file, asked = File(web.url("/a")), []

    def chooser(labels: list[str], task: object) -> str:
        asked.append(labels)
        if len(asked) == 2:
            web.pages["/a"] = Page(b"second", etag='"v2"')
        return ("one", "two", "one")[len(asked) - 1]

    web.pages["/a"] = Page(b"first", etag='"v1"')
    with nodes(tmp_path, http, retries=2, executor_chooser=chooser):
        future = read_and_fail(str(tmp_path / "flag"), inputs=[file])
        assert future.result(60) == "first"  # the second try, on the other node, cannot have that version
    assert len(asked) == 3


@pytest.mark.services
def test_a_bucket_that_keeps_versions_gives_the_one_that_the_run_has_seen(moto, s3_login, tmp_path):
    endpoint = f"http://127.0.0.1:{moto}"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket="versions", Key="a", Body=b"first")
    file = File("s3://versions/a")
    with nodes(tmp_path, lambda cache: S3Staging(endpoint_url=endpoint, in_task=True, retry=QUICK, cache=cache)):
        assert on("one", read, inputs=[file]).result(60) == "first"
        client.put_object(Bucket="versions", Key="a", Body=b"second")
        client.put_object(Bucket="versions", Key="ab", Body=b"another")
        assert on("two", read, inputs=[file]).result(60) == "first"
        for version in client.list_object_versions(Bucket="versions", Prefix="a")["Versions"]:
            if not version["IsLatest"]:
                client.delete_object(Bucket="versions", Key="a", VersionId=version["VersionId"])
        assert on("two", read, inputs=[file]).result(60) == "first"  # which it has kept
        assert on("one", read, inputs=[File(file.url, refresh="task")]).result(60) == "second"


def test_an_ftp_server_that_says_sizes_and_dates_is_held_to_them(ftp, root, tmp_path):
    (root / "a").write_text("first")
    file = File(ftp.url("/a"))
    with nodes(tmp_path, lambda cache: FTPInTaskStaging(retry=QUICK, cache=cache)):
        assert on("one", read, inputs=[file]).result(60) == "first"
        (root / "a").write_text("the second")
        with pytest.raises(StagingError, match="is not kept here: tasks see one version in a run"):
            on("two", read, inputs=[file]).result(60)


@pytest.mark.parametrize("headers", [{}, {"Cache-Control": "no-store"}])
def test_what_a_server_has_no_name_for_is_known_by_what_it_holds(web, tmp_path, headers):
    file = File(web.url("/a"))
    web.pages["/a"] = Page(b"first", etag=None, headers=headers)
    with nodes(tmp_path, http):
        assert [on(node, read, inputs=[file]).result(60) for node in ("one", "two")] == ["first"] * 2
        web.pages["/a"] = Page(b"second", etag=None, headers=headers)
        # With headers by which each task is to see its own, it does; else both have kept the first.
        seen = "second" if headers else "first"
        assert [on(node, read, inputs=[file]).result(60) for node in ("one", "two")] == [seen] * 2
        assert on("two", read, inputs=[File(file.url, refresh="task")]).result(60) == "second"


def test_a_node_that_gets_other_content_without_a_name_fails(web, tmp_path):
    file = File(web.url("/a"))
    web.pages["/a"] = Page(b"first", etag=None)
    with nodes(tmp_path, http):
        assert on("one", read, inputs=[file]).result(60) == "first"
        web.pages["/a"] = Page(b"second", etag=None)
        with pytest.raises(StagingError, match=r"'holding sha256:.*' by now, and other tasks .*'holding sha256:"):
            on("two", read, inputs=[file]).result(60)
        web.pages["/a"] = Page(b"first", etag='"named by now"')
        assert on("two", read, inputs=[file]).result(60) == "first"


def test_files_without_names_are_held_to_what_they_hold_where_nothing_is_kept(web, tmp_path):
    file = File(web.url("/a"))
    web.pages["/a"] = Page(b"first", etag=None)
    with nodes(tmp_path, lambda cache: http(CachePolicy(max_bytes=0, directory=cache.directory))):
        assert on("one", read, inputs=[file]).result(60) == "first"
        assert on("one", read, inputs=[file]).result(60) == "first"
        web.pages["/a"] = Page(b"second", etag=None)
        with pytest.raises(StagingError, match="other tasks of the run"):
            on("one", read, inputs=[file]).result(60)


@flow.python_app
def read_all(directory: Any) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(Path(directory).iterdir())}


def test_a_directory_is_one_version_on_all_nodes(ftp, root, tmp_path):
    (root / "d").mkdir()
    for name in ("a", "b"):
        (root / "d" / name).write_text(name)
    directory, first = Directory(ftp.url("/d")), {"a": "a", "b": "b"}

    def make(cache: CachePolicy) -> FTPInTaskStaging:
        return FTPInTaskStaging(retry=QUICK, cache=cache)

    def seen(node: str) -> dict[str, str]:
        found: dict[str, str] = read_all.options(executors=[node])(directory).result(60)
        return found

    with nodes(tmp_path, make):
        assert [seen("one"), seen("two")] == [first] * 2
        (root / "d" / "c").write_text("came later")
        for node in ("one", "two"):
            with pytest.raises(StagingError, match=r"/d.*other tasks of the run were given 'directory: "):
                seen(node)
        (root / "d" / "c").unlink()
        assert seen("two") == first
        (root / "d" / "a").write_text("another a")
        with pytest.raises(StagingError, match="other tasks of the run were given 'directory: "):
            seen("two")
    with nodes(tmp_path, make):  # another run sees what there is then
        assert seen("one") == {"a": "another a", "b": "b"}


def test_all_tasks_of_a_run_see_one_version_of_a_directory_here(ftp, root, tmp_path):
    (root / "d").mkdir()
    (root / "d" / "a").write_text("first")
    directory = Directory(ftp.url("/d"))

    def here(**options: Any) -> Any:
        method = FTPSeparateTaskStaging(retry=QUICK, cache=CachePolicy(directory=str(tmp_path / "cache"), **options))
        executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), method])
        return flow.load(flow.Config(executors=[executor], run_dir=str(tmp_path / "runinfo")))

    with here():
        assert read_all(directory).result(60) == {"a": "first"}
        (root / "d" / "a").write_text("the second")
        (root / "d" / "b").write_text("came later")
        assert read_all(directory).result(60) == {"a": "first"}
    with here():
        assert read_all(directory).result(60) == {"a": "the second", "b": "came later"}
        (root / "d" / "b").unlink()
        assert read_all(directory).result(60) == {"a": "the second", "b": "came later"}  # from what is kept
    with here(refresh="task"):
        assert read_all(directory).result(60) == {"a": "the second"}
        (root / "d" / "a").write_text("the very third")
        assert read_all(directory).result(60) == {"a": "the very third"}
