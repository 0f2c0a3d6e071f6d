"""How files are planned to get to a task and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st

import flow_core as flow
from flow_core.apps.app import AppBase
from flow_core.apps.decorators import bash_app, join_app, python_app
from flow_core.apps.definition import NO_OPTIONS, AppDefinition, CallOptions
from flow_core.errors import ConfigurationError, MissingOutputs, NoStagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.call import NodeContext, TaskStep
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_core.remote.bash import BashStep
from flow_core.remote.file_arguments import has_files, has_loose_files, replaced
from flow_core.remote.inputs import CheckInputs
from flow_core.remote.outputs import CheckOutputs, MakeDirectories
from flow_core.remote.run import execute
from flow_core.remote.staged import OwnDirectory, home_of, of_a_task
from flow_core.staging import defaults
from flow_core.staging.manager import StagingManager, StagingPlan
from flow_core.staging.noop import NoOpFileStaging
from flow_core.staging.places import StagedPaths, safe_name


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@python_app
def read(inputs: Any = [], outputs: Any = []) -> None: ...


@python_app
def plain(*args: Any, x: Any = None) -> None: ...


@bash_app
def shell(inputs: Any = [], outputs: Any = [], stdout: Any = None, stderr: Any = None) -> str:
    return "true"


@join_app
def joined(inputs: Any = []) -> Any: ...


class OnSubmitSide(Staging):
    """Notes what it is given; the test ends the transfers."""

    def __init__(self, scheme: str = "http") -> None:
        self.scheme = scheme
        self.moved: list[list[Transfer]] = []
        self.futures: list[Future[None]] = []
        self.closed = 0

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == self.scheme

    can_stage_out = can_stage_in

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | None:
        self.moved.append(list(transfers))
        self.futures.append(Future())
        return self.futures[-1]

    def close(self) -> None:
        self.closed += 1


@dataclass(frozen=True)
class NodeStep:
    transfers: tuple[Transfer, ...]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        if self.transfers[0].direction is Direction.IN:
            for transfer in self.transfers:
                transfer.local_path.parent.mkdir(parents=True, exist_ok=True)
                transfer.local_path.write_text(transfer.file.url)
            return inner()
        result = inner()
        for transfer in self.transfers:
            Path(transfer.file.path).write_text(transfer.local_path.read_text())
        return result


class OnNode(Staging):
    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "node"

    can_stage_out = can_stage_in

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        return NodeStep(tuple(transfers))


def executor(*methods: Staging, working_dir: str | None = None, label: str = "here") -> ThreadPoolExecutor:
    return ThreadPoolExecutor(label=label, storage_access=methods or None, working_dir=working_dir)


def planned(
    app: AppBase[..., Any],
    *args: Any,
    on: ThreadPoolExecutor,
    manager: StagingManager | None = None,
    options: CallOptions = NO_OPTIONS,
    **kwargs: Any,
) -> StagingPlan:
    return (manager or StagingManager([], run_dir=Path("run"))).plan(7, on, app.definition, args, kwargs, options)


def outputs(*urls: str) -> dict[str, Any]:
    files = [File(url) for url in urls]
    return {"outputs": files, "options": CallOptions(outputs=tuple(files))}


# -- nothing to do


def test_a_task_without_files_passes_through_untouched() -> None:
    plan = planned(plain, 1, on=executor(), x=[1, 2])
    assert plan == StagingPlan((1,), {"x": [1, 2]})


def test_bash_tasks_without_files_share_their_step() -> None:
    one, two = planned(shell, on=executor()), planned(shell, on=executor())
    assert one.steps is two.steps
    assert [type(step) for step in one.steps] == [BashStep]


def test_keywords_that_the_function_does_not_take_do_not_reach_it() -> None:
    plan = planned(plain, on=executor(), inputs=[1], outputs=[], x=5)
    assert plan.kwargs == {"x": 5}


def test_join_apps_hand_files_on_as_they_are() -> None:
    file = File("http://host/a")
    plan = planned(joined, on=executor(), inputs=[file])
    assert plan == StagingPlan((), {"inputs": [file]})


def test_local_files_need_no_staging_method_to_be_looked_for() -> None:
    manager = StagingManager()
    plan = planned(read, on=executor(), manager=manager, inputs=[File("/data/a")])
    assert plan.kwargs == {"inputs": [File("/data/a")]}
    assert plan.steps == (CheckInputs(7, "read", ("/data/a",)),)
    assert (plan.stage_in, manager._loaded) == (None, None)


# -- where files are


def inputs_of(plan: StagingPlan) -> list[File]:
    inputs = plan.kwargs["inputs"]
    assert isinstance(inputs, list)
    return inputs


def test_remote_files_come_into_a_directory_of_the_task_below_the_working_directory_of_each_executor(
    tmp_path: Path,
) -> None:
    manager, web, file = StagingManager([]), OnSubmitSide(), File("http://host/x/data.csv?v=1")
    for name in ("one", "two"):
        on = executor(web, working_dir=str(tmp_path / name))
        path = Path(inputs_of(planned(read, on=on, manager=manager, inputs=[file]))[0].filepath)
        assert path.name == "data.csv"
        assert path.parts[-2].startswith("7")
        assert home_of(path) == tmp_path / name
    assert file.local_path is None


def test_without_a_working_directory_files_come_into_the_runs_own(tmp_path: Path) -> None:
    manager, file = StagingManager([], run_dir=tmp_path), File("http://host/data.csv")
    plan = planned(read, on=executor(OnSubmitSide()), manager=manager, inputs=[file], **outputs("http://host/out"))
    assert home_of(Path(inputs_of(plan)[0].filepath)) == tmp_path
    assert Path(plan.outputs[0].filepath).parent == Path(inputs_of(plan)[0].filepath).parent


def test_what_a_node_moves_is_placed_below_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = File("node://host/a")
    for run_dir, home in ((tmp_path / "runinfo" / "000", "runinfo/000"), (Path("/elsewhere"), ".")):
        manager = StagingManager([], run_dir=run_dir)
        plan = planned(read, on=executor(OnNode()), manager=manager, inputs=[file])
        path = plan.on_node[0].local_path
        assert not path.is_absolute()
        assert home_of(path) == Path(home)
        assert plan.steps[0] == OwnDirectory(str(path.parent))


def test_directories_are_made_before_files_come_in_on_the_submit_side(tmp_path: Path) -> None:
    class Writes(OnSubmitSide):
        def stage(self, transfers: Sequence[Transfer]) -> Future[None] | None:
            for transfer in transfers:
                transfer.local_path.write_text("here")
            return None

    on = executor(Writes(), working_dir=str(tmp_path / "not" / "yet"))
    plan = planned(read, on=on, inputs=[File("http://host/a")])
    assert plan.stage_in is not None
    assert plan.stage_in().result(10) is None
    assert Path(inputs_of(plan)[0]).read_text() == "here"


def test_no_try_shares_a_place_with_another_task_try_run_or_spelling(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "wd")
    file, web = File("http://host/a"), OnSubmitSide()
    seen: list[str] = []
    for _ in range(2):
        manager = StagingManager([])
        for directory in ("wd", "link", "wd/../wd"):
            on = executor(web, working_dir=str(tmp_path / directory))
            for task_id in (1, 1, 2):
                plan = manager.plan(task_id, on, read.definition, (), {"inputs": [file]}, NO_OPTIONS)
                seen.append(os.path.realpath(inputs_of(plan)[0]))
    assert len(set(seen)) == len(seen)


def test_a_place_of_an_earlier_task_is_not_one_that_the_user_chose(tmp_path: Path) -> None:
    on, file = executor(OnSubmitSide(), working_dir=str(tmp_path)), File("http://host/a")
    first = inputs_of(planned(read, on=on, inputs=[file]))[0]
    again = inputs_of(planned(read, on=on, inputs=[first]))[0]
    assert of_a_task(str(first))
    assert again != first
    assert again.url == first.url


def test_a_method_may_take_local_paths_away_from_where_they_are(tmp_path: Path) -> None:
    class Copies(OnSubmitSide):
        copies_local = True

    plan = planned(read, on=executor(Copies("file"), working_dir=str(tmp_path)), inputs=[File("/data/a")])
    assert home_of(Path(inputs_of(plan)[0])) == tmp_path
    assert plan.stage_in is not None


def test_a_method_may_say_below_what_directory_files_are_to_lie(tmp_path: Path) -> None:
    class Below(OnSubmitSide):
        files_home = str(tmp_path / "endpoint")

    for working_dir, home in ((None, "endpoint"), (str(tmp_path / "wd"), "wd")):
        plan = planned(read, on=executor(Below(), working_dir=working_dir), inputs=[File("http://host/a")])
        assert home_of(Path(inputs_of(plan)[0])) == tmp_path / home


def test_what_the_submit_side_moves_after_all_is_no_directory_of_the_node(tmp_path: Path) -> None:
    class Either(OnSubmitSide):
        def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
            return None

    on = executor(Either(), working_dir=str(tmp_path))
    plan = planned(read, on=on, inputs=[File("http://host/a")], **outputs("http://host/b"))
    assert not [step for step in plan.steps if isinstance(step, OwnDirectory)]


def test_files_are_found_at_any_place_in_the_arguments(tmp_path: Path) -> None:
    class Pair(NamedTuple):
        a: Any
        b: Any

    file, web = File("http://host/f"), OnSubmitSide()
    on = executor(web, working_dir=str(tmp_path))
    plan = planned(plain, file, [1, {"k": file}], Pair(file, 2), on=on, x=(file,))
    here = plan.args[0]
    assert isinstance(here, File)
    assert home_of(Path(here)) == tmp_path
    assert plan.args == (here, [1, {"k": here}], Pair(here, 2))
    assert plan.kwargs == {"x": (here,)}
    assert plan.stage_in is not None
    plan.stage_in()
    assert [len(transfers) for transfers in web.moved] == [1]


def test_containers_without_files_stay_the_same_objects() -> None:
    numbers, web = [1, 2, 3], OnSubmitSide()
    plan = planned(plain, numbers, File("http://host/f"), on=executor(web))
    assert plan.args[0] is numbers


def test_two_files_of_one_name_never_meet_and_keep_their_name(tmp_path: Path) -> None:
    files = [File("http://a/data.csv"), File("http://b/data.csv"), File("http://a/data.csv")]
    plan = planned(read, on=executor(OnSubmitSide(), working_dir=str(tmp_path)), inputs=files)
    first, second, again = (Path(file) for file in inputs_of(plan))
    assert first == again
    assert second != first
    assert second.name == first.name == "data.csv"


def test_a_file_may_say_itself_where_it_is_to_be() -> None:
    plan = planned(read, on=executor(OnSubmitSide()), inputs=[File("http://host/a", local_path="/here/b")])
    assert plan.kwargs["inputs"] == [File("http://host/a", local_path="/here/b")]


def test_a_method_may_choose_the_place() -> None:
    class Choosing(OnSubmitSide):
        def local_path(self, file: File, working_dir: str | None) -> Path | None:
            return Path(working_dir or "") / "chosen"

    plan = planned(read, on=executor(Choosing("file"), working_dir="/w"), inputs=[File("/data/a")])
    assert plan.kwargs["inputs"] == [File("/data/a").at("/w/chosen")]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_names_from_urls_never_climb_out(path: str) -> None:
    name = safe_name(File(f"http://host/{path}"))
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert "\0" not in name
    assert len(name.encode()) <= 700


@pytest.mark.parametrize("url", ["http://h/..", "http://h/a/../..", "http://h/.", "http://h/", "http://h", "zip:/a/.."])
def test_names_that_lead_elsewhere_are_replaced(url: str, tmp_path: Path) -> None:
    places = StagedPaths(tmp_path).begin(1)
    folder = places.here(None)
    path = places.path(folder, File(url.replace("zip:", "zip://")))
    assert os.path.normpath(path).startswith(f"{folder}{os.sep}")


# -- methods


def test_the_first_method_that_can_is_taken() -> None:
    first, second = OnSubmitSide(), OnSubmitSide()
    plan = planned(read, on=executor(OnSubmitSide("ftp"), first, second), inputs=[File("http://host/a")])
    assert plan.stage_in is not None
    plan.stage_in()
    assert (len(first.moved), len(second.moved)) == (1, 0)


def test_a_file_that_nothing_can_move_is_an_error_that_names_all() -> None:
    with pytest.raises(NoStagingError) as caught:
        planned(read, on=executor(OnSubmitSide("ftp"), label="far"), inputs=[File("gopher://host/a")])
    assert caught.value.url == "gopher://host/a"
    for part in ("task 7 (read)", "'far'", "gopher://host/a", "'gopher'", "OnSubmitSide", "storage_access"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((File("gopher://host/a"),), {}, r"bring in gopher://host/a .scheme 'gopher'; .* NoOpFileStaging"),
        ((), {"inputs": ["x", File("gopher://me:pw@host/a")]}, r"gopher://me:\*\*\*@host/a"),
        ((), {"inputs": (Directory("gopher://host/a"),)}, "bring in the directory gopher"),
        ((Glob("a*"),), {}, "patterns name outputs"),
        ((), {"outputs": [Glob("http://host/a*")]}, "the files that match .* Web servers do not say"),
        ((), {"outputs": [File("http://host/a")]}, "upload=True"),
        ((File("s3://bucket/key"),), {}, r"there is S3Staging\(\) of flow-staging"),
    ],
)
def test_the_call_itself_is_refused_where_no_executor_can_ever_move_a_file(
    args: tuple[Any, ...], kwargs: dict[str, Any], said: str, tmp_path: Path
) -> None:
    called: list[object] = []

    @flow.python_app
    def app(*args: object, **kwargs: object) -> None:
        called.append(args)

    there = [ThreadPoolExecutor(label=name, storage_access=[NoOpFileStaging()]) for name in ("one", "two")]
    with flow.load(flow.Config(there, run_dir=str(tmp_path))) as kernel:
        with pytest.raises(NoStagingError, match=said):
            app(*args, **kwargs)
        app().result(30)
        assert kernel.summary().unfinished == 0
    assert called == [()]


def test_a_call_is_not_refused_while_one_executor_or_a_method_of_the_users_may_move_the_file(tmp_path: Path) -> None:
    @flow.python_app
    def app(*args: object, **kwargs: object) -> str:
        return "ran"

    class AtOnce(OnSubmitSide):
        def stage(self, transfers: Sequence[Transfer]) -> None:
            return None

    there = [
        ThreadPoolExecutor(label="local", storage_access=[NoOpFileStaging()]),
        ThreadPoolExecutor(label="users", storage_access=[AtOnce("gopher")]),
    ]
    with flow.load(flow.Config(there, run_dir=str(tmp_path), executor_chooser=lambda labels, task: "users")):
        assert app(File("gopher://host/a")).result(30) == "ran"
        assert isinstance(app(File("wais://host/a")).exception(30), NoStagingError)  # which only that method can know


def test_a_local_file_needs_a_method_too_where_methods_are_named() -> None:
    with pytest.raises(NoStagingError):
        planned(read, on=executor(OnSubmitSide()), inputs=[File("/data/a")])
    planned(read, on=executor(OnSubmitSide(), NoOpFileStaging()), inputs=[File("/data/a")])


def test_default_methods_are_found_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("web", f"{__name__}:OnSubmitSide", defaults.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: OnSubmitSide)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([point]))
    plan = planned(read, on=executor(), manager=StagingManager(), inputs=[File("http://host/a")])
    assert plan.stage_in is not None
    assert [type(method) for method in defaults.load_default_staging()] == [NoOpFileStaging, OnSubmitSide]


def test_an_installed_method_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("web", "no_such_module:Method", defaults.GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([point]))
    with pytest.raises(ConfigurationError, match=r"'web'.*no_such_module"):
        defaults.load_default_staging()


def test_the_default_list_can_be_added_to() -> None:
    mine = OnSubmitSide()
    assert [*defaults.default_staging, mine][-1] is mine
    assert isinstance(defaults.default_staging[0], NoOpFileStaging)
    assert defaults.default_staging is defaults.default_staging


def test_methods_that_were_used_are_closed_once() -> None:
    used, unused = OnSubmitSide(), OnSubmitSide("ftp")
    manager = StagingManager([])
    planned(read, on=executor(used, unused), manager=manager, inputs=[File("http://host/a")])
    manager.close()
    manager.close()
    assert (used.closed, unused.closed) == (1, 0)


def test_a_method_that_kernels_share_is_closed_by_the_last_of_them() -> None:
    web = OnSubmitSide()
    one, two = StagingManager([web]), StagingManager([web])
    for manager in (one, two, one):
        planned(read, on=executor(), manager=manager, inputs=[File("http://host/a")])
    one.close()
    one.close()
    assert web.closed == 0
    two.close()
    assert web.closed == 1


# -- moving on the submit side


def test_staging_in_ends_when_all_transfers_have() -> None:
    http, ftp = OnSubmitSide("http"), OnSubmitSide("ftp")
    plan = planned(read, on=executor(http, ftp), inputs=[File("http://h/a"), File("ftp://h/b"), File("http://h/c")])
    assert plan.stage_in is not None
    moved = plan.stage_in()
    assert [[transfer.file.url for transfer in batch] for batch in (http.moved[0], ftp.moved[0])] == [
        ["http://h/a", "http://h/c"],
        ["ftp://h/b"],
    ]
    assert {transfer.direction for transfer in http.moved[0]} == {Direction.IN}
    http.futures[0].set_result(None)
    assert not moved.done()
    ftp.futures[0].set_result(None)
    assert moved.result(10) is None


def test_outputs_are_moved_out_by_a_call_of_their_own(tmp_path: Path) -> None:
    web = OnSubmitSide()
    wd = tmp_path / "w"
    plan = planned(read, on=executor(web, working_dir=str(wd)), inputs=[File("http://h/a")], **outputs("http://h/out"))
    assert home_of(Path(plan.outputs[0])) == wd
    assert plan.kwargs["outputs"] == list(plan.outputs)
    assert plan.stage_out is not None
    plan.stage_out()
    assert [transfer.direction for transfer in web.moved[0]] == [Direction.OUT]


def test_a_file_is_brought_to_each_place_that_is_chosen_for_it(tmp_path: Path) -> None:
    method, url = OnSubmitSide(), "http://host/a"
    files = [File(url, local_path="p"), File(url, local_path="q"), File(url, local_path="./p"), File(url)]
    plan = planned(read, on=executor(method), inputs=files)
    assert [file.local_path for file in plan.kwargs["inputs"]] == ["p", "q", "p", "p"]
    assert plan.stage_in is not None
    plan.stage_in()
    assert [str(each.local_path) for each in method.moved[0]] == ["p", "q"]


def test_no_two_files_are_brought_to_one_place(tmp_path: Path) -> None:
    files = [File("http://host/a", local_path="p"), File("http://host/b", local_path="./p")]
    with pytest.raises(ConfigurationError, match=r"http://host/b and http://host/a have the same local_path, .*p"):
        planned(read, on=executor(OnSubmitSide()), inputs=files)


def test_an_output_is_made_at_one_place(tmp_path: Path) -> None:
    files = [File("http://host/a", local_path="p"), File("http://host/a", local_path="q")]
    with pytest.raises(ConfigurationError, match="http://host/a is declared as an output twice"):
        planned(read, on=executor(OnSubmitSide()), outputs=files, options=CallOptions(outputs=tuple(files)))


def test_a_file_that_comes_in_and_goes_out_has_one_place(tmp_path: Path) -> None:
    web = OnSubmitSide()
    plan = planned(
        read, on=executor(web, working_dir=str(tmp_path)), inputs=[File("http://h/a")], **outputs("http://h/a")
    )
    assert plan.kwargs["inputs"] == plan.kwargs["outputs"]
    assert plan.stage_in is not None
    assert plan.stage_out is not None


# -- steps


def test_steps_come_in_their_order_outermost_first() -> None:
    on = executor(OnNode(), NoOpFileStaging(), working_dir="/w")
    plan = planned(shell, on=on, inputs=[File("node://h/in")], **outputs("node://h/out", "/o/local"))
    kinds = [type(step) for step in plan.steps]
    assert kinds == [OwnDirectory, NodeStep, NodeStep, MakeDirectories, CheckOutputs, BashStep]
    assert (plan.stage_in, plan.stage_out) == (None, None)
    own, into, out, folders, check, _ = plan.steps
    assert isinstance(own, OwnDirectory)
    assert isinstance(into, NodeStep)
    assert isinstance(out, NodeStep)
    assert (into.transfers[0].direction, out.transfers[0].direction) == (Direction.IN, Direction.OUT)
    assert isinstance(check, CheckOutputs)
    assert (check.paths, check.replaced, check.number) == ((f"{own.path}/out", "/o/local"), ("/o/local",), 1)
    assert check.task.endswith("-7")
    assert folders == MakeDirectories((own.path, "/o"))


def run(plan: StagingPlan, app: AppDefinition) -> object:
    return execute(app.func, plan.args, plan.kwargs, NO_OPTIONS.spec, plan.steps, NodeContext())


def test_files_move_around_the_function_on_the_node(tmp_path: Path) -> None:
    @python_app
    def upper(inputs: Any = [], outputs: Any = []) -> None:
        with open(inputs[0]) as source, open(outputs[0], "w") as target:
            target.write(source.read().upper())

    on = executor(OnNode(), working_dir=str(tmp_path / "work"))
    plan = planned(upper, on=on, inputs=[File("node://h/in")], **outputs(f"node://{tmp_path}/published"))
    run(plan, upper.definition)
    assert (tmp_path / "published").read_text() == "NODE://H/IN"


def test_outputs_of_a_failed_task_are_not_published(tmp_path: Path) -> None:
    @python_app
    def fails(outputs: Any = []) -> None:
        Path(outputs[0]).write_text("half")
        raise ZeroDivisionError

    @python_app
    def forgets(outputs: Any = []) -> None: ...

    on = executor(OnNode(), working_dir=str(tmp_path / "work"))
    for app, error in ((fails, ZeroDivisionError), (forgets, MissingOutputs)):
        target = tmp_path / app.definition.name
        plan = planned(app, on=on, **outputs(f"node://{target}"))
        with pytest.raises(error):
            run(plan, app.definition)
        assert not target.exists()


# -- streams


def test_streams_of_bash_apps_go_into_the_step_and_to_the_function() -> None:
    options = CallOptions(stdout="out", stderr=("err", "w"))
    plan = planned(shell, on=executor(), options=options, stdout="flow.AUTO_LOGNAME", stderr=("err", "w"))
    assert plan.steps == (BashStep("shell", ("out", "a"), ("err", "w")),)
    assert plan.kwargs == {"stdout": "out", "stderr": "err"}


def test_a_stream_may_be_a_file_that_is_staged_out(tmp_path: Path) -> None:
    web = OnSubmitSide()
    options = CallOptions(stdout=File("http://h/log"))
    plan = planned(shell, on=executor(web, working_dir=str(tmp_path)), options=options)
    (step,) = plan.steps
    assert isinstance(step, BashStep)
    assert step.stdout is not None
    assert home_of(Path(step.stdout[0])) == tmp_path
    assert plan.stage_in is None
    assert plan.stage_out is not None


def test_the_search_for_files_asks_no_object_what_class_it_says_it_has() -> None:
    class Proxy:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise OSError("it cannot be fetched")

    values = [[Proxy()], {"a": Proxy()}, Proxy()]
    assert not has_files(values)
    assert not has_loose_files(values)
    assert replaced(values, lambda file: file) is values
