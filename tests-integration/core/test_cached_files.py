"""Cached calls know the files that they read by what these hold, whatever executor runs them, and in later scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Directory, File
from flow_core.executors.threads import ThreadPoolExecutor
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers import LocalProvider
from flow_staging import RSyncStaging

pytestmark = pytest.mark.timeout(120)

EXECUTORS = {
    "threads": lambda: ThreadPoolExecutor("here"),
    "htex": lambda: HighThroughputExecutor("here", LocalProvider(init_blocks=1, max_blocks=1), max_workers=2),
    "llex": lambda: LowLatencyExecutor("here", LocalProvider(init_blocks=1, max_blocks=1)),
}


@flow.python_app(cache=True)
def read(journal, inputs=()):
    from pathlib import Path

    with open(journal, "a") as stream:
        stream.write("x")
    texts = []
    for each in inputs:
        path = Path(each)
        texts += [part.read_text() for part in sorted(path.iterdir())] if path.is_dir() else [path.read_text()]
    return texts


@flow.bash_app(cache=True)
def upper(journal, inputs=(), outputs=()):
    return f"printf x >> {journal}; tr a-z A-Z < {inputs[0]} > {outputs[0]}"


@flow.python_app(cache=True)
def read_slowly(file, journal, read, go):
    import time
    from pathlib import Path

    text = Path(file).read_text()
    with open(journal, "a") as stream:
        stream.write("x")
    Path(read).touch()
    end = time.monotonic() + 60
    while not Path(go).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return text


@pytest.mark.parametrize("kind", EXECUTORS)
def test_edits_are_seen_and_earlier_contents_found_again(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal, runs = Path("journal"), []
    journal.touch()
    Path("folder").mkdir()
    for data, member, count in (
        ("a", "b", 2),
        ("a", "b", 2),
        ("c", "b", 4),
        ("a", "b", 4),
        ("a", "d", 5),
        ("c", "b", 5),
    ):
        Path("data").write_text(data)
        Path("folder/member").write_text(member)
        config = flow.Config([EXECUTORS[kind]()], checkpoint_mode="task_exit", checkpoint_files=list(runs))
        with flow.load(config) as kernel:
            place = str(journal.absolute())
            for _ in range(2):
                future = read(place, inputs=[File("data"), Directory("folder")])
                assert future.result(60) == [data, member]
                upper(place, inputs=[File("data")], outputs=[File(f"{data}.out")]).result(60)
                assert Path(f"{data}.out").read_text() == data.upper()
        runs.append(str(kernel.run_dir))
        assert len(journal.read_text()) == count


@pytest.mark.parametrize("kind", EXECUTORS)
def test_what_is_written_to_while_its_reader_runs_is_not_remembered(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = tmp_path / "journal"
    places = [str(tmp_path / name) for name in ("journal", "read", "go")]
    Path("data").write_text("a")
    with flow.load(flow.Config([EXECUTORS[kind]()])) as kernel:
        future = read_slowly(File("data"), *places)
        while not Path("read").exists():
            assert not future.done()
        Path("new").write_text("b")
        Path("new").replace("data")
        Path("go").touch()
        assert future.result(60) == "a"
        Path("data").write_text("a")
        for _ in range(2):
            assert read_slowly(File("data"), *places).result(60) == "a"
    assert len(journal.read_text()) == 2
    assert "data (other content)" in (kernel.run_dir / "flow.log").read_text()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed: apt-get install rsync")
def test_files_that_nodes_fetch_from_the_script_count_by_what_they_hold_there(tmp_path, monkeypatch):
    """The nodes have a directory of their own; rsync takes the files from this machine, without ssh."""
    monkeypatch.chdir(tmp_path)
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nuntil [ "$1" = rsync ]; do shift; done\nexec "$@"\n')
    ssh.chmod(0o755)
    journal = Path("journal")
    journal.touch()
    provider = LocalProvider(init_blocks=1, max_blocks=1)
    methods = [RSyncStaging("me@here", ssh=str(ssh))]
    executor = HighThroughputExecutor(
        "nodes", provider, max_workers=1, working_dir=str(tmp_path / "wd"), storage_access=methods
    )
    with flow.load(flow.Config([executor])):
        for text, count in (("a", 1), ("a", 1), ("b", 2), ("a", 2)):
            Path("data").write_text(text)
            assert read(str(journal.absolute()), inputs=[File("data")]).result(60) == [text]
            assert len(journal.read_text()) == count


SCRIPT = """
import sys
from pathlib import Path
import flow
from flow import Config, File, python_app
from flow.utils import get_all_checkpoints

@python_app(cache=True)
def read(file):
    return Path(file).read_text()

with flow.load(Config(checkpoint_mode="task_exit", checkpoint_files=get_all_checkpoints())) as kernel:
    print(read(File("data")).result(60), kernel.summary().memoized)
"""


def test_scripts_that_follow_each_other_find_the_results_of_contents(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    said = []
    for text, old in (("a", False), ("a", True), ("b", True), ("a", False)):
        (tmp_path / "data").write_text(text)
        if old:
            os.utime(tmp_path / "data", (1, 1))
        command = [sys.executable, "script.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        said.append(done.stdout.split())
    assert said == [["a", "0"], ["a", "1"], ["b", "0"], ["a", "1"]]
