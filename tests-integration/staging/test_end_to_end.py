"""Files named by URL through a loaded kernel: apps see local paths, outputs arrive, failures are told."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import File
from flow_core.errors import DependencyError, NoStagingError, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.remote.staged import home_of
from flow_core.staging.noop import NoOpFileStaging
from flow_monitor import MonitoringHub, open_database
from flow_monitor.queries import tasks
from flow_staging import FTPInTaskStaging, FTPSeparateTaskStaging, HTTPInTaskStaging, ZipFileStaging
from flow_staging.http import HTTPSeparateTaskStaging

pytest.importorskip("pyftpdlib")

from staging_servers import QUICK, Page, cut_at

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "staging"


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


@flow.python_app
def upper(inputs=(), outputs=()):
    text = Path(inputs[0].filepath).read_text().upper()
    if outputs:
        Path(outputs[0].filepath).write_text(text)
    return text


@flow.bash_app
def cat(inputs=(), stdout=None):
    return f"cat {inputs[0]}"


@flow.bash_app
def fail_half_way(outputs=()):
    return f"echo half > {outputs[0]}; exit 3"


def nothing_staged_in(directory: Path) -> bool:
    return not list(directory.glob(".flow-staged-*"))


def config(*executors: ThreadPoolExecutor) -> flow.Config:
    return flow.Config(executors=list(executors) or None, initialize_logging=False)


def test_the_default_methods_fetch_by_http_and_ftp(web, ftp, root):
    text = "some text\n" * 10_000
    web.pages["/a.txt"] = Page(text.encode())
    web.pages["/a.txt"].plan.append(cut_at(50_000))
    (root / "b.txt").write_text(text)
    with flow.load(config()):
        one = upper(inputs=[File(web.url("/a.txt"))])
        two = upper(inputs=[File(ftp.url("/b.txt"))])
        assert one.result(50) == two.result(50) == text.upper()


def test_the_database_has_the_digest_that_a_server_states_and_not_the_password(web, tmp_path):
    body = b"some text\n" * 10_000
    digest = hashlib.sha256(body)
    web.pages["/a.txt"] = Page(body, headers={"Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"})
    web.pages["/b.txt"] = Page(body)
    url = web.url("/a.txt").replace("http://", "http://me:hush@")
    shown = web.url("/a.txt").replace("http://", "http://me:***@")
    database_file = tmp_path / "monitoring.db"
    for folder in ("first", "second", "second"):  # the last is taken from the cache
        executor = ThreadPoolExecutor(working_dir=str(tmp_path / folder))
        hub = MonitoringHub(logging_endpoint=f"sqlite:///{database_file}")
        with flow.load(flow.Config(executors=[executor], monitoring=hub, run_dir=tmp_path / "runinfo")) as kernel:
            made = upper(inputs=[File(url), File(web.url("/b.txt"))])
            assert made.result(50) == body.decode().upper()
            run = kernel.run_id
        with open_database(str(database_file)) as database, database.connect() as connection:
            files = {file.url: (file.size, file.digest) for file in tasks.one(connection, run, made.tid).inputs}
        assert files == {shown: (len(body), digest.hexdigest()), web.url("/b.txt"): (len(body), "")}
    assert ("/a.txt", "Basic " + base64.b64encode(b"me:hush").decode()) in [
        (path, headers.get("Authorization")) for path, headers in web.seen
    ]
    written = [database_file, *(path for path in (tmp_path / "runinfo").rglob("*") if path.is_file())]
    assert len(written) > 6  # logs and events of each run
    assert not [path for path in written if b"hush" in path.read_bytes()]


@pytest.mark.parametrize("in_task", [False, True])
def test_outputs_and_streams_go_out_by_ftp(web, ftp, root, tmp_path, in_task):
    web.pages["/a.txt"] = Page(b"some text\n")
    if in_task:
        methods = [HTTPInTaskStaging(retry=QUICK), FTPInTaskStaging(retry=QUICK)]
    else:
        methods = [HTTPSeparateTaskStaging(retry=QUICK), FTPSeparateTaskStaging(retry=QUICK)]
    executor = ThreadPoolExecutor(
        storage_access=[NoOpFileStaging(), *methods], working_dir=str(tmp_path / "wd"), max_threads=2
    )
    with flow.load(config(executor)):
        made = upper(inputs=[File(web.url("/a.txt"))], outputs=[File(ftp.url("/new/upper.txt"))])
        made.outputs[0].result(50)
        assert (root / "new" / "upper.txt").read_text() == "SOME TEXT\n"
        cat(inputs=[made.outputs[0]], stdout=File(ftp.url("/streams/cat.txt"))).result(50)
        assert (root / "streams" / "cat.txt").read_text() == "SOME TEXT\n"
    assert nothing_staged_in(tmp_path / "wd")


@pytest.mark.parametrize("in_task", [False, True])
@pytest.mark.parametrize("spelling", ["wd", "./wd", "other/../wd", "{here}/wd", "link", None])
def test_a_working_directory_may_be_spelled_in_any_way(web, ftp, root, somewhere, in_task, spelling):
    web.pages["/a.txt"] = Page(b"some text\n")
    for directory in ("wd", "other"):
        (somewhere / directory).mkdir()
    (somewhere / "link").symlink_to("wd")
    methods = (
        [HTTPInTaskStaging(retry=QUICK), FTPInTaskStaging(retry=QUICK)]
        if in_task
        else [HTTPSeparateTaskStaging(retry=QUICK), FTPSeparateTaskStaging(retry=QUICK)]
    )
    directory = None if spelling is None else spelling.format(here=somewhere)
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), *methods], working_dir=directory)
    with flow.load(config(executor)):
        made = upper(inputs=[File(web.url("/a.txt"))], outputs=[File(ftp.url("/upper.txt"))])
        made.outputs[0].result(50)
    assert (root / "upper.txt").read_text() == "SOME TEXT\n"
    assert nothing_staged_in(somewhere / "wd")
    assert nothing_staged_in(somewhere)
    assert not (somewhere / "wd" / "wd").exists()


def test_nothing_of_a_failed_task_is_published(ftp, root):
    with flow.load(config()):
        failed = fail_half_way(outputs=[File(ftp.url("/half.txt"))])
        assert failed.exception(50) is not None
        assert failed.outputs[0].exception(50) is not None
    assert list(root.iterdir()) == []


def test_a_missing_input_fails_the_task_with_url_and_number(web):
    with flow.load(config()):
        future = upper(inputs=[File(web.url("/none.txt"))])
        with pytest.raises(StagingError, match=rf"task {future.tid}\b.*/none.txt.*404"):
            future.result(50)


def test_a_failed_stage_out_fails_the_data_future_and_those_who_wait_for_it(web, ftp, root):
    web.pages["/a.txt"] = Page(b"text")
    with flow.load(config()):
        made = upper(inputs=[File(web.url("/a.txt"))], outputs=[File(ftp.url("/out.txt", "reader:r@"))])
        later = upper(inputs=[made.outputs[0]])
        with pytest.raises(StagingError, match="550"):
            made.outputs[0].result(50)
        with pytest.raises(DependencyError):
            later.result(50)
    assert list(root.iterdir()) == []


def test_two_executors_have_copies_of_their_own_and_the_file_here_is_not_changed(web, tmp_path):
    web.pages["/a.txt"] = Page(b"text")
    executors = [ThreadPoolExecutor(label=label, working_dir=str(tmp_path / label)) for label in ("one", "two")]

    @flow.python_app
    def where(file):
        return file.filepath

    with flow.load(config(*executors)):
        file = File(web.url("/a.txt"))
        places = [where.options(executors=[label])(file).result(50) for label in ("one", "two")]
        assert [(home_of(Path(place)), Path(place).name) for place in places] == [
            (tmp_path / label, "a.txt") for label in ("one", "two")
        ]
        assert file.local_path is None


def test_members_of_archives_are_files_too(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("dir/in.txt", "text")
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), ZipFileStaging()], max_threads=4)
    with flow.load(config(executor)):
        futures = [
            upper(inputs=[File(f"zip:{archive}/dir/in.txt")], outputs=[File(f"zip:{archive}/out/{n}")])
            for n in range(20)
        ]
        for future in futures:
            future.outputs[0].result(50)
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == sorted(["dir/in.txt", *(f"out/{n}" for n in range(20))])
        assert opened.read("out/7") == b"TEXT"


def test_an_unknown_scheme_is_told_by_name():
    with flow.load(config()), pytest.raises(NoStagingError, match="gopher"):
        upper(inputs=[File("gopher://host/a")]).result(50)


def test_one_configuration_can_be_loaded_twice(web):
    web.pages["/a.txt"] = Page(b"text")
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), HTTPSeparateTaskStaging(retry=QUICK)])
    for _ in range(2):
        with flow.load(config(executor)):
            assert upper(inputs=[File(web.url("/a.txt"))]).result(50) == "TEXT"


def test_the_example_of_a_method_of_ones_own_works(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "gzip_store.py")],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "13 words\nthe longest is compressed\n"
    assert "work" in os.listdir(tmp_path)
