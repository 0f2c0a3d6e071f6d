"""Outputs that are directories, or all files that match a pattern."""

from __future__ import annotations

import pickle
from concurrent.futures import Future, InvalidStateError
from pathlib import Path

import pytest

import flow_core as flow
from flow.utils import get_all_checkpoints
from flow_core import Directory, File, Glob
from flow_core.errors import ConfigurationError, MissingInputs, MissingOutputs, NoStagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures.data_future import DataFuture
from flow_core.staging.noop import NoOpFileStaging
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider
from flow_staging import ZipFileStaging

METHODS = [NoOpFileStaging(), ZipFileStaging()]


@pytest.fixture(params=["threads", "htex"])
def loaded(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if request.param == "threads":
        executor = ThreadPoolExecutor(storage_access=METHODS)
    else:
        executor = HighThroughputExecutor(
            max_workers=2, provider=LocalProvider(init_blocks=1, max_blocks=1), storage_access=METHODS
        )
    with flow.load(flow.Config(executors=[executor], retries=0)):
        yield tmp_path


@flow.python_app
def plot(names, outputs=()):
    import os

    for name in names:
        path = os.path.join(outputs[0].folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as stream:
            stream.write(f"plot {name}")
    return len(names)


@flow.python_app
def fill(names, outputs=()):
    import os

    for name in names:
        path = os.path.join(outputs[0], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as stream:
            stream.write(name)


@flow.python_app
def contents(files):
    from pathlib import Path

    return [Path(file).read_text() for file in files]


@flow.python_app
def names_in(directory):
    import os

    return sorted(os.listdir(directory))


@flow.bash_app
def split(outputs=()):
    return f"for i in 1 2 3; do echo $i > {outputs[0].folder}/part-$i.txt; done"


@pytest.mark.timeout(120)
def test_a_pattern_gives_the_files_that_the_task_made(loaded):
    Path("plots").mkdir()
    Path("plots/old.png").write_text("old")
    Path("plots/changed.png").write_text("old")
    made = plot(["b.png", "a[1].png", "changed.png", "no.txt", ".hidden.png"], outputs=[Glob("plots/*.png")])
    assert made.result(60) == 5
    files = made.outputs[0].result(10)
    assert [type(file) for file in files] == [File] * 3
    assert [file.url for file in files] == ["plots/a[1].png", "plots/b.png", "plots/changed.png"]
    assert contents(made.outputs[0]).result(60) == ["plot a[1].png", "plot b.png", "plot changed.png"]
    assert Path("plots/old.png").read_text() == "old"
    every = plot(["c.png"], outputs=[Glob("plots/*.png", update=True)]).outputs[0].result(60)
    assert len(every) == 5


@pytest.mark.timeout(120)
def test_a_pattern_may_span_directories(loaded):
    files = plot(["x/a.csv", "y/z/b.csv", "c.csv"], outputs=[Glob(f"{loaded}/out/**/*.csv")]).outputs[0].result(60)
    assert [file.filepath for file in files] == [f"{loaded}/out/{name}" for name in ("c.csv", "x/a.csv", "y/z/b.csv")]


@pytest.mark.timeout(120)
def test_a_pattern_alone_means_the_current_directory(loaded):
    assert [file.url for file in split(outputs=[Glob("part-?.txt")]).outputs[0].result(60)] == [
        "part-1.txt",
        "part-2.txt",
        "part-3.txt",
    ]


@pytest.mark.timeout(120)
def test_none_that_matches_is_missing(loaded):
    Path("plots").mkdir()
    Path("plots/old.png").write_text("old")
    error = plot(["a.txt"], outputs=[Glob("plots/*.png")]).exception(60)
    assert isinstance(error, MissingOutputs)
    assert error.outputs == ["plots/*.png"]
    assert "plots/*.png" in str(error)
    assert "update=True" in str(error)


@pytest.mark.timeout(120)
def test_a_directory_is_an_output_and_an_input(loaded):
    made = fill(["a.txt", "b.txt"], outputs=[Directory("out/all")])
    assert names_in(made.outputs[0]).result(60) == ["a.txt", "b.txt"]
    assert made.outputs[0].result(10) == Directory("out/all").relative_to(str(loaded))
    again = fill(["a.txt"], outputs=[Directory("out/all")])
    assert again.outputs[0].result(60).url == "out/all"


@pytest.mark.timeout(120)
def test_a_directory_in_which_nothing_was_made_is_missing(loaded):
    for prepare in (lambda: None, lambda: Path("out").mkdir(), lambda: Path("out/old.txt").write_text("old")):
        prepare()
        error = fill([], outputs=[Directory("out")]).exception(60)
        assert isinstance(error, MissingOutputs)
        assert error.outputs == ["out"]
    assert Path("out/old.txt").read_text() == "old"
    assert fill([], outputs=[Directory("out", update=True)]).exception(60) is None


@pytest.mark.timeout(120)
def test_a_file_is_no_directory(loaded):
    Path("file").write_text("x")

    @flow.python_app
    def size(inputs=()):
        return inputs[0].filepath

    @flow.bash_app
    def touch(outputs=()):
        return f"touch {outputs[0]}"

    error = size(inputs=[Directory("file")]).exception(60)
    assert isinstance(error, MissingInputs)
    assert "Not a directory" in str(error)
    assert isinstance(touch(outputs=[Directory("new")]).exception(60), MissingOutputs)
    assert not Path("new").exists()


@pytest.mark.timeout(120)
def test_what_cannot_be_is_refused_by_name(loaded):
    with pytest.raises(NoStagingError, match="patterns name outputs"):
        names_in(Glob("*.txt"))
    for output, said in (
        (Directory("http://h/d"), "the directory http://h/d"),
        (Glob("http://h/*"), "the files that match"),
    ):
        with pytest.raises(NoStagingError, match=said):
            plot(["a"], outputs=[output])

    @flow.join_app
    def join(outputs=()):
        return plot(["a.png"], outputs=outputs)

    with pytest.raises(ConfigurationError, match="join app"):
        join(outputs=[Glob("*.png")])
    with pytest.raises(ConfigurationError, match="no pattern"):
        Glob("plots/a.png")


def test_a_pattern_and_a_directory_are_not_a_file(tmp_path):
    assert len({File("a*"), Glob("a*"), Directory("a*")}) == 3
    for file in (Glob("/d/x/*.t?t", update=True), Directory("s3://b/k", local_path="/x")):
        twin = pickle.loads(pickle.dumps(file))
        assert twin == file
        assert repr(twin) == repr(file)
        assert type(twin) is type(file)
        assert type(file.clean_copy()) is type(file)
    glob = Glob("/d/x/**/*.txt")
    assert (glob.base, glob.pattern, glob.folder) == ("/d/x", "**/*.txt", "/d/x")
    assert (Glob("/*.txt").base, Glob("/*.txt").folder, Glob("*.txt").base, Glob("*.txt").folder) == ("/", "/", "", ".")
    remote = Glob("s3://bucket/a/b*/c.txt")
    assert (remote.base, remote.pattern) == ("s3://bucket/a", "b*/c.txt")
    assert remote.member("b1/c.txt").url == "s3://bucket/a/b1/c.txt"
    assert (remote.at("/there").folder, remote.at("/there").filepath) == ("/there", "/there/b*/c.txt")
    assert Glob("*").member("~x/a").filepath == "./~x/a"


# -- remembered calls


@flow.python_app(cache=True)
def remembered(journal, outputs=()):
    import os

    with open(journal, "a") as stream:
        stream.write("ran\n")
    folder = outputs[0].folder if outputs[0].kind == "pattern" else outputs[0].filepath
    os.makedirs(folder, exist_ok=True)
    for name in ("a.txt", "b.txt"):
        with open(os.path.join(folder, name), "w") as stream:
            stream.write("made")
    return "result"


def ran() -> int:
    return len(Path("journal").read_text().split())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("output", [Glob("out/*.txt"), Directory("out")])
def test_a_remembered_call_is_run_again_if_one_of_its_files_is_gone_or_another(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/zz.txt").write_text("not of the task")

    def call():
        future = remembered("journal", outputs=[output])
        assert future.result(60) == "result"
        made = future.outputs[0].result(10)
        if output.kind == "pattern":
            assert [file.filename for file in made] == ["a.txt", "b.txt"]
        return ran()

    with flow.load(flow.Config(executors=[ThreadPoolExecutor()], checkpoint_mode="task_exit")):
        assert call() == 1
        assert call() == 1
        futures = [remembered("journal", outputs=[output]) for _ in range(3)]
        assert [future.result(30) for future in futures] == ["result"] * 3
        assert ran() == 1
        Path("out/b.txt").unlink()
        assert call() == 2
        assert call() == 2
        Path("out/a.txt").write_text("by hand")
        assert call() == 3
    flow.clear()
    with flow.load(flow.Config(executors=[ThreadPoolExecutor()], checkpoint_files=get_all_checkpoints())):
        assert call() == 3


@pytest.mark.timeout(120)
def test_identical_calls_in_flight_get_the_same_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with flow.load(flow.Config(executors=[ThreadPoolExecutor()])):
        futures = [remembered("journal", outputs=[Glob("out/*.txt")]) for _ in range(4)]
        lists = [[file.filename for file in future.outputs[0].result(30)] for future in futures]
    assert lists == [["a.txt", "b.txt"]] * 4
    assert ran() == 1


@pytest.mark.timeout(120)
def test_the_future_of_a_pattern_has_a_length_and_files_once_they_are_known(loaded):
    made = plot(["b.png", "a.png"], outputs=[Glob("plots/*.png"), File("plots/a.png")])
    files, one = made.outputs
    assert files.result(60) == list(files) == [files[0], files[1]]
    assert (len(files), files[-1].filename, [file.filename for file in files[:1]]) == (2, "b.png", ["a.png"])
    assert bool(one)
    with pytest.raises(TypeError, match="declared as a Glob"):
        len(one)
    failed = plot([], outputs=[Glob("none/*.png")]).outputs[0]
    failed.exception(60)
    with pytest.raises(MissingOutputs):
        list(failed)


@pytest.mark.timeout(120)
def test_the_files_of_a_pattern_are_not_known_before_they_are_made():
    future = DataFuture(Future(), Glob("plots/*.png"))
    assert bool(future)
    for ask in (len, list, lambda files: files[0]):
        with pytest.raises(InvalidStateError, match="wait for result"):
            ask(future)
