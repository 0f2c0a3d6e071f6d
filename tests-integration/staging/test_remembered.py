"""Remembered calls with remote outputs: run again where an output is gone or another by now."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from staging_servers import QUICK

import flow_core as flow
from flow_core import File
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import FTPInTaskStaging, FTPSeparateTaskStaging, ZipFileStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer


@flow.python_app(cache=True)
def make(journal, outputs=()):
    with open(journal, "a") as stream:
        stream.write("ran\n")
    with open(outputs[0], "w") as stream:
        stream.write("made")


class OnFtp:
    def __init__(self, folder: Path, in_task: bool) -> None:
        self.path = folder / "root" / "out.txt"
        self.path.parent.mkdir()
        self.server = FtpServer(self.path.parent)
        self.url = self.server.url("/out.txt")
        self.method = FTPInTaskStaging(retry=QUICK) if in_task else FTPSeparateTaskStaging(retry=QUICK)

    def gone(self) -> None:
        self.path.unlink()

    def changed(self) -> None:
        self.path.write_text("by hand")

    def close(self) -> None:
        self.server.close()


class InArchive:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "a.zip"
        self.url = f"zip:{self.path}/out.txt"
        self.method = ZipFileStaging()

    def gone(self) -> None:
        self._write("other")

    def changed(self) -> None:
        self._write("out.txt")

    def _write(self, name: str) -> None:
        with zipfile.ZipFile(self.path, "w") as archive:
            archive.writestr(name, "hand")

    def close(self) -> None:
        self.path.unlink()


KINDS = {
    "zip": InArchive,
    "ftp": lambda folder: OnFtp(folder, in_task=False),
    "ftp on nodes": lambda folder: OnFtp(folder, in_task=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_run_again_whose_remote_output_is_gone_or_another(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = KINDS[kind](tmp_path)
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), store.method])
    checkpoints, journal = [], tmp_path / "journal"

    def runs() -> int:
        with flow.load(flow.Config(executors=[executor], checkpoint_files=list(checkpoints))) as kernel:
            for _ in range(2):
                make(str(journal), outputs=[File(store.url)]).outputs[0].result(50)
            checkpoints.append(kernel.checkpoint())
        return len(journal.read_text().splitlines())

    try:
        assert runs() == 1
        assert runs() == 1
        store.gone()
        assert runs() == 2
        store.changed()
        assert runs() == 3
        assert runs() == 3
    finally:
        store.close()


def test_a_server_that_does_not_answer_is_believed_to_have_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = OnFtp(tmp_path, in_task=False)
    journal = tmp_path / "journal"
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), store.method])
    with flow.load(flow.Config(executors=[executor])):
        make(str(journal), outputs=[File(store.url)]).result(50)
        store.close()
        make(str(journal), outputs=[File(store.url)]).result(50)
    assert len(journal.read_text().splitlines()) == 1
