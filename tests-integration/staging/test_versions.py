"""Which version of a file tasks see, on a server that has another one each time it is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from staging_servers import QUICK, Page, WebServer, hang_at

import flow_core as flow
from flow_core import File
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import CachePolicy, FTPSeparateTaskStaging, HTTPInTaskStaging, HTTPSeparateTaskStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer


class Changing(dict):
    """Pages of which each answer is another version; ``asked`` counts them."""

    def __init__(self, *, etag: bool = True, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.asked = 0
        self._etag = etag
        self._headers = headers or {}

    def get(self, path: str, default: object = None) -> Page:
        self.asked += 1
        return Page(b"v%d" % self.asked, f'"v{self.asked}"' if self._etag else None, headers=self._headers)


@flow.python_app
def reads(file, between=None):
    with open(file) as stream:
        first = stream.read()
    if between is not None:
        between()
    with open(file) as stream:
        return first, stream.read()


@flow.python_app
def at_second_try(file, marks):
    """Fail once, and leave a word of what was seen."""
    from pathlib import Path

    with open(file) as stream:
        seen = stream.read()
    path = Path(marks)
    if not path.exists():
        path.write_text(seen)
        raise RuntimeError("the first try fails")
    return path.read_text(), seen


def on_threads(working_dir: Path | None, cache: CachePolicy) -> ThreadPoolExecutor:
    methods = [NoOpFileStaging(), HTTPSeparateTaskStaging(retry=QUICK, cache=cache)]
    return ThreadPoolExecutor("here", storage_access=methods, working_dir=working_dir and str(working_dir))


def on_nodes(working_dir: Path | None, cache: CachePolicy) -> HighThroughputExecutor:
    return HighThroughputExecutor(
        "here",
        LocalProvider(init_blocks=1, max_blocks=1),
        max_workers=2,
        storage_access=[NoOpFileStaging(), HTTPInTaskStaging(retry=QUICK, cache=cache)],
        working_dir=working_dir and str(working_dir),
    )


BOTH = pytest.mark.parametrize("kind", [on_threads, on_nodes], ids=lambda kind: kind.__name__)


def run(tmp_path: Path, executor, retries: int = 0):
    return flow.load(flow.Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), retries=retries))


@BOTH
@pytest.mark.parametrize("working_dir", ["wd", None])
@pytest.mark.parametrize("etag", [True, False])
def test_all_tasks_and_tries_of_a_run_see_one_version_and_those_of_the_next_another(
    kind, working_dir, etag, web, tmp_path
):
    web.pages = Changing(etag=etag)
    seen = []
    for number in range(2):
        with run(tmp_path, kind(working_dir and tmp_path / working_dir, CachePolicy()), retries=1):
            tasks = [reads(File(web.url("/a"))) for _ in range(5)]
            tried = at_second_try(File(web.url("/a")), str(tmp_path / f"mark{number}"))
            seen.append({text for task in (*tasks, tried) for text in task.result(60)})
    assert [len(each) for each in seen] == [1, 1]
    assert seen[0] != seen[1]
    assert web.pages.asked == 2


@BOTH
def test_with_refresh_of_tasks_each_task_asks_and_its_tries_see_one_version(kind, web, tmp_path):
    web.pages = Changing()
    with run(tmp_path, kind(tmp_path / "wd", CachePolicy(refresh="task")), retries=1):
        seen = [reads(File(web.url("/a"))).result(60) for _ in range(3)]
        first, second = at_second_try(File(web.url("/a")), str(tmp_path / "mark")).result(60)
    assert len(set(seen)) == 3
    assert all(a == b for a, b in seen)
    assert first == second
    assert web.pages.asked == 4


@BOTH
def test_without_refresh_what_is_kept_is_used_by_later_runs(kind, web, tmp_path):
    web.pages = Changing()
    for _ in range(2):
        with run(tmp_path, kind(None, CachePolicy(refresh="never"))):
            assert reads(File(web.url("/a"))).result(60) == ("v1", "v1")
    assert web.pages.asked == 1


def test_a_file_says_more_than_its_method(web, tmp_path):
    web.pages = Changing()
    with run(tmp_path, on_threads(None, CachePolicy())):
        assert [reads(File(web.url("/a"))).result(50)[0] for _ in range(2)] == ["v1", "v1"]
        assert [reads(File(web.url("/a"), refresh="task")).result(50)[0] for _ in range(2)] == ["v2", "v3"]
        assert reads(File(web.url("/a"), refresh="never")).result(50)[0] == "v1"  # what this run has seen
        assert reads(File(web.url("/a"))).result(50)[0] == "v1"
    assert web.pages.asked == 3


def test_a_server_that_says_so_is_asked_by_each_task_and_a_retry_sees_what_the_first_try_saw(web, tmp_path):
    web.pages = Changing(etag=False, headers={"Cache-Control": "no-store"})
    with run(tmp_path, on_threads(None, CachePolicy()), retries=1):
        assert [reads(File(web.url("/a"))).result(50)[0] for _ in range(2)] == ["v1", "v2"]
        assert at_second_try(File(web.url("/a")), str(tmp_path / "mark")).result(50) == ("v3", "v3")


def test_a_file_that_changes_under_a_running_task_does_not_reach_it(web, tmp_path):
    web.pages = Changing()
    method = CachePolicy(refresh="task")
    with run(tmp_path, on_threads(tmp_path / "wd", method)):
        later = []

        def others() -> None:
            later.append(reads(File(web.url("/a"))).result(50)[0])

        assert reads(File(web.url("/a")), others).result(50) == ("v1", "v1")
        assert later == ["v2"]


def test_runs_side_by_side_see_each_its_own_version(web, tmp_path):
    web.pages = Changing()
    code = f"""
import sys
import flow_core as flow
from flow_core import File
from flow_core.executors.threads import ThreadPoolExecutor
@flow.python_app
def reads(file):
    return open(file).read()
with flow.load(flow.Config(executors=[ThreadPoolExecutor("here")], run_dir={str(tmp_path / "other")!r})):
    for line in sys.stdin:
        print(reads(File({web.url("/a")!r})).result(50), flush=True)
"""
    other = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None

    def elsewhere() -> str:
        other.stdin.write("go\n")
        other.stdin.flush()
        return other.stdout.readline().strip()

    with run(tmp_path, on_threads(None, CachePolicy())):
        seen = [(reads(File(web.url("/a"))).result(50)[0], elsewhere()) for _ in range(3)]
    other.stdin.close()
    assert other.wait(50) == 0
    other.stdout.close()
    assert seen == [("v1", "v2")] * 3


def test_ftp_files_are_pinned_too(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    server = FtpServer(root)
    methods = [NoOpFileStaging(), FTPSeparateTaskStaging(retry=QUICK)]
    (root / "a").write_text("old")
    with run(tmp_path, ThreadPoolExecutor("here", storage_access=methods)):
        assert reads(File(server.url("/a"))).result(50)[0] == "old"
        (root / "a").write_text("newer")
        assert reads(File(server.url("/a"))).result(50)[0] == "old"
    with run(tmp_path, ThreadPoolExecutor("here", storage_access=methods)):
        assert reads(File(server.url("/a"))).result(50)[0] == "newer"
    server.close()


def test_what_a_killed_run_had_fetched_of_a_file_is_gone_on_with_by_the_next(tmp_path):
    web, body = WebServer(), os.urandom(3 << 20)
    web.pages["/a"] = Page(body)
    web.pages["/a"].plan.append(hang_at(2 << 20))
    code = f"""
import flow_core as flow
from flow_core import File
from flow_core.executors.threads import ThreadPoolExecutor
@flow.python_app
def reads(file):
    return 1
flow.load(flow.Config(executors=[ThreadPoolExecutor("here")], run_dir={str(tmp_path / "runinfo")!r}))
reads(File({web.url("/a")!r})).result()
"""
    killed = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
    assert web.hanging.acquire(timeout=50)
    part = wait_for_part(Path(os.environ["XDG_CACHE_HOME"]), 1 << 20)
    killed.send_signal(signal.SIGKILL)
    killed.wait(50)
    size = part.stat().st_size

    @flow.python_app
    def holds(file):
        return Path(file).read_bytes() == body

    with run(tmp_path, on_threads(None, CachePolicy())):
        assert holds(File(web.url("/a"))).result(50)
    assert web.seen[-1][1].get("Range") == f"bytes={size}-"
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.part"))
    web.close()


def wait_for_part(root: Path, size: int) -> Path:
    waiting = threading.Event()
    for _ in range(2_000):
        for part in root.rglob("*.part"):
            if part.stat().st_size >= size:
                return part
        waiting.wait(0.02)
    raise AssertionError("nothing came")
