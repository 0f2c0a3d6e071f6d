"""Files of tasks whose nodes do not see the script's disk: nodes of this machine that are made to believe so."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import AUTO_LOGNAME, Config, Directory, File, Glob, bash_app, python_app
from flow_core.errors import BashExitFailure, MissingInputs, MissingOutputs, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_executors import runtime
from flow_executors.common.run_marker import RunMarker
from flow_executors.htex import PilotExecutor
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import make_executor, wait_until

pytestmark = pytest.mark.timeout(120)
BY_NETWORK = "{python} -m {module} {debug} {options} --addresses=127.0.0.1"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The script's directory; nodes have theirs elsewhere."""
    monkeypatch.setattr(runtime, "_marker", lambda context: RunMarker("/nowhere/marker", "0" * 32, "0" * 64))
    monkeypatch.setattr(PilotExecutor, "carries_files", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(params=["htex", "llex"])
def apart(request, project):
    """A loaded run whose nodes are apart."""
    make = make_executor if request.param == "htex" else make_direct_executor
    executor = make(label="apart", launch_cmd=BY_NETWORK, max_transfer_bytes=50_000_000)
    config = Config(
        executors=[executor, ThreadPoolExecutor(label="here")], run_dir=str(project / "runinfo"), strategy="none"
    )
    with flow.load(config) as kernel:
        yield kernel
    nothing_is_left(project)


def nothing_is_left(project):
    assert list(project.rglob("*.part")) == []
    assert [path for path in (project.parent / "node").rglob("*") if path.is_file()] == []


@python_app(executors=["apart"])
def read(inputs=()):
    return [Path(file).read_text() for file in inputs], os.getcwd()


@python_app(executors=["apart"])
def write(text, outputs=()):
    Path(outputs[0]).write_text(text)


@bash_app(executors=["apart"])
def say(word, stdout=None, stderr=None):
    return f"echo {word}; echo {word} >&2"


def test_inputs_come_by_any_name(apart, project):
    (project / "data").mkdir()
    (project / "data/in.txt").write_text("one")
    (project.parent / "far.txt").write_text("two")
    files = [File("data/in.txt"), File(str(project.parent / "far.txt")), File(f"file://{project}/data/in.txt")]
    texts, where = read(inputs=[*files, File("../far.txt")]).result()
    assert texts == ["one", "two", "one", "two"]
    assert Path(where).is_relative_to(project.parent / "node")


def test_a_file_as_an_argument_is_opened_where_the_app_runs(apart, project):
    (project / "in.txt").write_text("one")

    @python_app(executors=["apart"])
    def first(named):
        with open(named["deep"][0]) as stream:
            return stream.read(), str(named["deep"][0])

    assert first({"deep": [File("in.txt")]}).result() == ("one", "in.txt")


def test_an_output_is_there_when_its_future_is_done_and_goes_on_to_others(apart, project):
    made = write("made", outputs=[File("sub/made.txt")])
    assert Path(made.outputs[0].result()).read_text() == "made"
    assert read(inputs=[made.outputs[0]]).result()[0] == ["made"]

    @python_app(executors=["here"])
    def here(file):
        return Path(file).read_text()

    assert here(made.outputs[0]).result() == "made"


def test_an_output_that_is_not_made_is_missing_and_what_lay_there_stays(apart, project):
    (project / "made.txt").write_text("before")

    @python_app(executors=["apart"])
    def nothing(outputs=()):
        pass

    assert isinstance(nothing(outputs=[File("made.txt")]).exception(), MissingOutputs)
    assert (project / "made.txt").read_text() == "before"


def test_half_an_output_of_a_failed_task_is_not_published(apart, project):
    (project / "made.txt").write_text("before")

    @python_app(executors=["apart"])
    def half(outputs=()):
        Path(outputs[0]).write_text("ha")
        raise RuntimeError("the disk broke")

    assert isinstance(half(outputs=[File("made.txt")]).exception(), RuntimeError)
    assert (project / "made.txt").read_text() == "before"


def test_a_missing_input_is_named_as_ever(apart):
    error = read(inputs=[File("none.txt")]).exception()
    assert isinstance(error, MissingInputs)
    assert "none.txt" in str(error)


def test_standard_streams_land_on_the_scripts_disk(apart, project):
    for word in ("one", "two"):
        assert say(word, stdout="out.txt", stderr=(str(project / "err.txt"), "w")).result() == 0
    assert (project / "out.txt").read_text() == "one\ntwo\n"
    assert (project / "err.txt").read_text() == "two\n"


def test_automatic_names_of_streams_lead_to_what_was_written(apart):
    future = say("hello", stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME)
    future.result()
    assert Path(future.stdout).read_text() == "hello\n"
    assert Path(future.stderr).read_text() == "hello\n"


def test_what_a_failing_command_wrote_comes_back(apart, project):
    @bash_app(executors=["apart"])
    def fail(stdout=None, stderr=None):
        return "echo before; echo reason >&2; exit 3"

    error = fail(stdout="out.txt", stderr="err.txt").exception()
    assert isinstance(error, BashExitFailure)
    assert (project / "out.txt").read_text() == "before\n"
    assert (project / "err.txt").read_text() == "reason\n"


def test_directories_and_patterns_travel_both_ways(apart, project):
    (project / "tree/a/b").mkdir(parents=True)
    (project / "tree/empty").mkdir()
    for number in range(30):
        (project / f"tree/a/b/{number}.txt").write_text(str(number))
    (project / "tree/run.sh").write_text("#!/bin/sh\necho ran\n")
    (project / "tree/run.sh").chmod(0o755)

    @bash_app(executors=["apart"])
    def work(tree, outputs=(), stdout=None):
        copies, plots = outputs[0], outputs[1].folder
        return (
            f"{tree}/run.sh && mkdir -p {copies}/x/y && cp {tree}/a/b/*.txt {copies}/x/y && test -d {tree}/empty"
            f" && for n in 1 2 3; do echo $n > {plots}/plot-$n.png; done; touch {plots}/other"
        )

    done = work(Directory("tree"), outputs=[Directory("copy"), Glob("plots/*.png")], stdout="out.txt")
    assert done.result() == 0
    assert [file.filename for file in done.outputs[1].result()] == ["plot-1.png", "plot-2.png", "plot-3.png"]
    assert (project / "plots/plot-2.png").read_text() == "2\n"
    assert not (project / "plots/other").exists()
    assert sorted(int(path.read_text()) for path in (project / "copy/x/y").iterdir()) == list(range(30))
    assert (project / "out.txt").read_text() == "ran\n"


def test_a_file_that_is_updated_is_brought_first(apart, project):
    (project / "log.txt").write_text("one\n")

    @bash_app(executors=["apart"])
    def log(outputs=()):
        return f"echo two >> {outputs[0]}"

    log(outputs=[File("log.txt", update=True)]).result()
    assert (project / "log.txt").read_text() == "one\ntwo\n"


def test_what_is_too_large_says_what_moves_it(apart, project):
    with open(project / "large", "wb") as stream:
        stream.truncate(60_000_000)
    error = read(inputs=[File("large")]).exception()
    assert isinstance(error, StagingError)
    for word in ("60,000,000", "max_transfer_bytes", "RSyncStaging", "S3Staging", "GlobusStaging"):
        assert word in str(error)


def test_large_files_come_whole_and_once(apart, project):
    content = os.urandom(1 << 20) * 20
    (project / "large").write_bytes(content)
    os.utime(project / "large", (1, 1))

    @python_app(executors=["apart"])
    def look(file, outputs=()):
        data = Path(file).read_bytes()
        Path(outputs[0]).write_bytes(data[::-1])
        return os.stat(file).st_ino

    time.sleep(2.1)  # a file that has just changed is not kept: it might change again without another time
    one = look(File("large"), outputs=[File("back")])
    two = look(File("large"), outputs=[File("back2")])
    assert one.result() == two.result()
    assert (project / "back").read_bytes() == content[::-1] == (project / "back2").read_bytes()


def test_a_result_names_files_as_the_script_does(apart, project):
    (project / "in.txt").write_text("one")

    @python_app(executors=["apart"])
    def same(file):
        return file

    assert Path(same(File("in.txt")).result()).read_text() == "one"
    assert Path(same(File(str(project / "in.txt"))).result()).read_text() == "one"


def test_the_directory_of_a_try_is_gone_after_it(apart, project):
    where = Path(read(inputs=[]).result()[1])
    (project / "in.txt").write_text("one")
    where = Path(read(inputs=[File("in.txt")]).result()[1])
    wait_until(lambda: not where.exists(), "the directory of the try is left", 10)
