from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kernel_apps import add

import flow_core as flow
from flow_core.errors import KernelClosedError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.graph.effects import Effect
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.retry import Budgets
from flow_core.interfaces.call import NodeContext, TaskStep
from flow_core.interfaces.events import (
    Event,
    EventKind,
    FileStaged,
    RunEnded,
    RunStarted,
    TaskChanged,
    TaskEnded,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.sinks import RunInfo
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.kernel.reactor import Reactor
from flow_core.remote.staged import home_of
from flow_core.staging.noop import NoOpFileStaging
from flow_core.testing import MemoryExecutor


class Sink:
    def __init__(self, wants: EventKind = EventKind.ALL) -> None:
        self.wants = wants
        self.events: list[Event] = []
        self.run: RunInfo | None = None

    def start(self, run: RunInfo) -> None:
        self.run = run

    def emit(self, events: Sequence[Event]) -> None:
        self.events.extend(events)

    def close(self, timeout_s: float) -> int:
        return 0

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@flow.join_app
def body() -> Any:
    return add(1)


def test_a_sink_is_told_the_whole_life_of_tasks(tmp_path: Path) -> None:
    sink = Sink()
    executor = MemoryExecutor("memory")
    with flow.load(flow.Config([executor], sinks=[sink], retries=1, run_dir=tmp_path, name="life")):
        parent = add(1)
        child = add(parent)
        executor.fail(executor.waiting[0], ValueError("first"))
        executor.run_all()
        assert child.result(10) == 3
    assert sink.run is not None
    assert sink.run.name == "life"
    assert [type(e) for e in sink.events[:1] + sink.events[-1:]] == [RunStarted, RunEnded]
    assert [(e.task_id, e.app, e.depends) for e in sink.of(TaskSubmitted)] == [(0, "add", ()), (1, "add", (0,))]
    assert [(e.task_id, e.try_id, e.verdict) for e in sink.of(TryEnded)] == [
        (0, 0, "APP_ERROR"),
        (0, 1, "OK"),
        (1, 0, "OK"),
    ]
    assert [(e.task_id, e.try_id) for e in sink.of(TryLaunched)] == [(0, 0), (0, 1), (1, 0)]
    assert [e.task_id for e in sink.of(TryStarted)] == [0, 1]
    assert [(e.task_id, e.state) for e in sink.of(TaskChanged)] == [(1, "pending"), (0, "fail_retryable")]
    ended = sink.of(TaskEnded)
    assert [(e.task_id, e.state, e.tries, e.fail_count) for e in ended] == [
        (0, "exec_done", 2, 1),
        (1, "exec_done", 1, 0),
    ]
    assert sink.of(RunEnded)[0].completed == 2


class Telling:
    """Must not be asked for its text: that could do anything."""

    def __repr__(self) -> str:
        raise AssertionError


def test_what_inputs_hold_is_told_where_it_is_not_files_and_tasks_alone(tmp_path: Path) -> None:
    sink = Sink(EventKind.TASK)
    foreign: Future[int] = Future()
    foreign.set_result(3)
    with flow.load(flow.Config(sinks=[sink], run_dir=tmp_path)):
        first = add(1)
        calls = [
            [1, "a.txt", None, first, Telling(), 10**5000, b"x" * 300, foreign],
            ["a.txt", first],
            [2.5] * 1002,
            [],
        ]
        for inputs in calls:
            take(inputs=inputs).result(10)
    told = [event.items for event in sink.of(TaskSubmitted) if event.app == "take"]
    assert told[0] == ("1", "a.txt", "None", "task 0", "<Telling>", "<int>", "<bytes>", "<Future>")
    assert told[1] == told[3] == ()
    assert told[2] == ("2.5",) * 1000 + ("2 more",)


@flow.python_app
def take(inputs: Sequence[Any] = ()) -> int:
    return len(inputs)


def test_tasks_of_a_join_body_name_their_parent(tmp_path: Path) -> None:
    sink = Sink(EventKind.TASK)
    with flow.load(flow.Config(sinks=[sink], run_dir=tmp_path)):
        assert body().result(10) == 2
    assert [(e.app, e.app_kind, e.parent) for e in sink.of(TaskSubmitted)] == [
        ("body", "join", None),
        ("add", "python", 0),
    ]


def test_a_failed_task_tells_its_root_cause(tmp_path: Path) -> None:
    sink = Sink(EventKind.TASK)
    with flow.load(flow.Config(sinks=[sink], run_dir=tmp_path)):
        add(add("x")).exception(10)  # type: ignore[arg-type]  # the point of the test
    states = {e.task_id: (e.state, e.error.split(":")[0], bool(e.traceback)) for e in sink.of(TaskEnded)}
    assert states == {0: ("failed", "TypeError", True), 1: ("dep_fail", "TypeError", False)}


def test_monitoring_is_a_sink_whose_sampler_reaches_executors(tmp_path: Path) -> None:
    spec = SamplerSpec("somewhere:make", 3.0)

    class Hub(Sink):
        def sampler(self) -> SamplerSpec:
            return spec

    seen: list[Any] = []

    class Curious(MemoryExecutor):
        def start(self, context: Any) -> None:
            seen.append(context)
            super().start(context)

    with flow.load(flow.Config([Curious("memory")], monitoring=Hub(), run_dir=tmp_path)) as kernel:
        assert seen[0].sampler == spec
        assert seen[0].run_id == kernel.run_id
        assert seen[0].executor_dir == kernel.run_dir / "memory"


def test_nobody_who_wants_nothing_costs_anything(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=tmp_path)) as kernel:
        add(1).result(10)
        assert not kernel._core.verbose
        assert kernel.pump.backlog() == 0


# -- the reactor by itself


def make_reactor() -> Reactor:
    reactor = Reactor(GraphCore(Budgets()), logging.getLogger("flow.kernel"))
    reactor.on_ended = lambda tasks: None
    return reactor


def test_an_interrupt_while_effects_are_carried_out_loses_none() -> None:
    reactor = make_reactor()
    done: list[Effect] = []

    def perform(effects: list[Any]) -> None:
        while effects:
            if len(done) == 1 and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            done.append(effects.pop(0)[0])

    interrupted: list[bool] = []
    reactor.perform = perform
    wanted = [Effect.LAUNCH, Effect.PLACE, Effect.JOIN]

    def three(_given: object) -> None:
        reactor.core.effects += [(effect, None, None) for effect in wanted]  # type: ignore[misc]  # no task needed

    with pytest.raises(KeyboardInterrupt):
        reactor.post(three, None)
    reactor.post(lambda _given: None, None)
    assert done == wanted


def test_an_event_in_the_midst_of_another_does_not_deadlock() -> None:
    reactor = make_reactor()
    reactor.perform = lambda effects: None
    order: list[str] = []

    def outer(_given: object) -> None:
        reactor.post(lambda _g: order.append("inner"), None)  # as a finalizer or a signal handler may
        assert reactor.call(lambda: "no", "refused") == "refused"
        order.append("outer")

    reactor.post(outer, None)
    assert order == ["outer", "inner"]


def test_an_event_that_cannot_be_handled_is_counted_and_the_next_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    reactor = make_reactor()
    reactor.perform = lambda effects: None
    seen = threading.Event()
    reactor.post(lambda _given: 1 / 0, None)
    reactor.post(lambda _given: seen.set(), None)
    assert seen.is_set()
    assert reactor.bugs == 1
    assert "bug of Flow" in caplog.text


class Fetching(Staging):
    """Brings ``made:`` files in on the submit side; ``made://gone`` cannot be had."""

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "made"

    can_stage_out = can_stage_in

    def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
        for transfer in transfers:
            if transfer.file.netloc.endswith("gone"):
                raise OSError("no such thing")
            if transfer.direction is Direction.IN:
                transfer.local_path.write_text("12345")
        moved: Future[Digests] = Future()
        moved.set_result(["ab" if transfer.direction is Direction.IN else "" for transfer in transfers])
        return moved


class OnNode(Staging):
    """Brings ``node:`` files in on the node."""

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "node"

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        return Fetched(tuple(transfers))


@dataclass(frozen=True)
class Fetched:
    transfers: tuple[Transfer, ...]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        return inner()


def test_files_that_were_moved_are_told_of(tmp_path: Path) -> None:
    sink = Sink(EventKind.FILE)
    executor = ThreadPoolExecutor(storage_access=[Fetching(), OnNode(), NoOpFileStaging()])
    kernel = DataFlowKernel(flow.Config(executors=[executor], run_dir=tmp_path / "runinfo", sinks=[sink]))

    @flow.python_app(data_flow_kernel=kernel)
    def copy(inputs: Sequence[Any], outputs: Sequence[Any] = ()) -> None:
        for output in outputs:
            Path(output).write_text("123")

    files = ["made://host/a", "node://host/b"]
    copy(inputs=[File(url) for url in files], outputs=[File("made://host/c"), tmp_path / "local"]).result(10)
    assert copy(inputs=[File("made://gone/d")]).exception(10) is not None
    kernel.cleanup()
    told = {event.url: event for event in sink.events if isinstance(event, FileStaged)}
    assert {url: (event.direction, event.size, event.digest, event.task_id) for url, event in told.items()} == {
        "made://host/a": ("in", 5, "ab", 0),
        "node://host/b": ("in", -1, "", 0),
        "made://host/c": ("out", 3, "", 0),
        "made://gone/d": ("in", -1, "", 1),
    }
    assert home_of(Path(told["made://host/a"].local_path)) == kernel.run_dir
    assert "no such thing" in told["made://gone/d"].error


def test_sinks_and_the_log_never_see_the_password_of_a_url(tmp_path: Path) -> None:
    seen: list[str] = []

    class Noting(Fetching):
        def stage(self, transfers: Sequence[Transfer]) -> Future[Digests] | None:
            seen.extend(transfer.file.url for transfer in transfers)
            return super().stage(transfers)

    sink = Sink(EventKind.FILE | EventKind.TASK)
    executor = ThreadPoolExecutor(storage_access=[Noting(), NoOpFileStaging()])
    kernel = DataFlowKernel(flow.Config(executors=[executor], run_dir=tmp_path / "runinfo", sinks=[sink]))

    @flow.bash_app(data_flow_kernel=kernel)
    def say(inputs: Sequence[Any], outputs: Sequence[Any] = (), stdout: Any = None) -> str:
        return f"cat {inputs[0]} > {outputs[0]}; echo said"

    secret = "made://me:hu:sh@host/"
    first = say(inputs=[File(f"{secret}a")], outputs=[File(f"{secret}b?sig=hu:sh")], stdout=File(f"{secret}out"))
    assert first.result(10) == 0
    for wrong in ("made://me:hu:sh@gone/c", "none://me:hu:sh@host/d"):
        assert say(inputs=[File(wrong), first.outputs[0]], outputs=[tmp_path / "x"]).exception(10) is not None
    kernel.cleanup()
    assert {f"{secret}a", f"{secret}b?sig=hu:sh", f"{secret}out"} <= set(seen)
    assert "hu:sh" not in f"{sink.events} {first.outputs} {first.stdout}"
    assert "made://me:***@host/b?sig=***" in str(sink.events)
    assert "hu:sh" not in (kernel.run_dir / "flow.log").read_text()


def test_calls_are_held_back_while_a_sink_is_far_behind(tmp_path: Path) -> None:
    kernel = DataFlowKernel(flow.Config(run_dir=tmp_path / "runinfo"))
    kernel.pump._room.clear()
    kernel.pump.congested = True
    submitted = threading.Event()

    def call() -> None:
        kernel.submit(int).result(10)
        submitted.set()

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert not submitted.wait(0.2)
    assert kernel.summary().submitted == 0
    kernel.pump.congested = False
    kernel.pump._room.set()
    assert submitted.wait(10)
    caller.join(10)
    kernel.cleanup()


def test_callbacks_and_workers_are_never_held_back(tmp_path: Path) -> None:
    kernel = DataFlowKernel(flow.Config(run_dir=tmp_path / "runinfo"))
    inner: list[Any] = []
    gate = threading.Event()
    future = kernel.submit(lambda: gate.wait(10))
    future.add_done_callback(lambda _done: inner.append(kernel.submit(int)))
    kernel.pump._room.clear()
    kernel.pump.congested = True
    gate.set()
    assert future.result(10)
    kernel.wait_for_current_tasks()
    kernel.cleanup()
    assert inner[0].done()


def test_cleanup_ends_the_wait_for_a_sink(tmp_path: Path) -> None:
    kernel = DataFlowKernel(flow.Config(run_dir=tmp_path / "runinfo"))
    kernel.pump._room.clear()
    kernel.pump.congested = True
    refused = threading.Event()

    def call() -> None:
        with pytest.raises(KernelClosedError):
            kernel.submit(int)
        refused.set()

    threading.Thread(target=call, daemon=True).start()
    kernel.cleanup()
    assert refused.wait(10)
