"""Files brought in within the task, by worker processes of the high-throughput executor, and by processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from staging_servers import Page, cut_at

import flow_core as flow
from flow_core import File
from flow_core.errors import StagingError
from flow_core.remote.staged import home_of
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import FTPInTaskStaging, HTTPInTaskStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer


@flow.python_app
def upper(inputs=(), outputs=()):
    from pathlib import Path

    text = Path(inputs[0].filepath).read_text().upper()
    Path(outputs[0].filepath).write_text(text)
    return inputs[0].filepath


def asked_for(web, path: str) -> int:
    """How often a path was asked for from its first byte and whatever is known of it."""
    return sum(seen == path and "Range" not in headers and "If-None-Match" not in headers for seen, headers in web.seen)


@pytest.mark.timeout(120)
def test_workers_bring_files_in_and_out_themselves(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    ftp = FtpServer(root)
    text = "some text\n" * 100_000
    web.pages["/a"] = Page(text.encode())
    web.pages["/a"].plan.append(cut_at(500_000))
    executor = HighThroughputExecutor(
        label="nodes",
        max_workers=2,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        storage_access=[NoOpFileStaging(), HTTPInTaskStaging(), FTPInTaskStaging()],
        working_dir=str(tmp_path / "wd"),
    )
    with flow.load(flow.Config(executors=[executor])):
        futures = [upper(inputs=[File(web.url("/a"))], outputs=[File(ftp.url(f"/{n}"))]) for n in range(6)]
        places = {Path(future.result(60)) for future in futures}
        assert len(places) == len(futures)
        assert {(home_of(place), place.name) for place in places} == {(tmp_path / "wd", "a")}
        for n, future in enumerate(futures):
            future.outputs[0].result(60)
            assert (root / str(n)).read_text() == text.upper()
        missing = upper(inputs=[File(web.url("/none"))], outputs=[File(ftp.url("/never"))])
        with pytest.raises(StagingError, match=rf"task {missing.tid} on executor nodes.*/none.*404"):
            missing.result(60)
    ftp.close()
    assert asked_for(web, "/a") == 1
    assert not (root / "never").exists()
    assert list((tmp_path / "wd").iterdir()) == []


def test_processes_that_want_one_file_at_once_fetch_it_once(web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from flow_core.interfaces.call import NodeContext
from flow_staging import HTTPInTaskStaging
from staging_servers import incoming
for n in range(5):
    path = Path(f"{{sys.argv[1]}}-{{n}}")
    step = HTTPInTaskStaging().step([incoming({web.url("/a")!r}, path)])
    step.run(lambda: None, NodeContext(working_dir={str(tmp_path)!r}))
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(k)]) for k in range(4)]
    assert [process.wait(50) for process in running] == [0] * 4
    assert all((tmp_path / f"{k}-{n}").read_bytes() == payload for k in range(4) for n in range(5))
    assert asked_for(web, "/a") == 1
