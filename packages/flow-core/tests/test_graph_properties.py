"""Random graphs, completions, failures, losses, refusals and cancels through the pure core, checked at each event."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any, cast

from hypothesis import HealthCheck, given, settings, strategies as st

from flow_core.apps.definition import NO_OPTIONS, AppDefinition, AppKind
from flow_core.errors import DependencyError, JoinError
from flow_core.futures.app_future import AppFuture
from flow_core.graph.check import check
from flow_core.graph.effects import Effect
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.retry import Budgets
from flow_core.graph.states import State
from flow_core.graph.task import SharedParents, Task
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.memoizer import AppIdentity, MemoKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, Verdict

FAIR = Place("x")


def nothing() -> None:
    return None


class Label:
    def __init__(self, label: str, kills: bool) -> None:
        self.label = label
        self.kills = kills


EXECUTORS = [Label("a", kills=True), Label("b", kills=False)]


class World:
    """A shell without threads: hypothesis decides which of the things that may happen next does."""

    def __init__(self, data: st.DataObject, lazy: bool) -> None:
        self.data = data
        budgets = Budgets(retries=1, infrastructure_retries=2, max_worker_kills=2)
        self.core = GraphCore(budgets, lazy_errors=lazy, asks_price=data.draw(st.booleans()))
        self.core.verbose = data.draw(st.booleans())
        self.tasks: list[Task] = []
        self.parents: dict[int, list[Task]] = {}
        self.foreign: dict[int, int] = {}
        self.todo: list[tuple[Effect, Task, Any]] = []
        self.out: dict[int, Task] = {}
        self.staged: list[Task] = []
        self.publishing: list[Task] = []
        self.memory: dict[bytes, object] = {}
        self.ends: list[int] = []
        self.promised: set[Task] = set()
        self.launches: set[int] = set()
        self.values: dict[int, object] = {}
        self.joined: dict[int, list[Task]] = {}
        self.junctions: list[tuple[SharedParents, list[Task]]] = []

    # -- what may happen

    def step(self) -> None:
        options = ["submit"]
        options += ["carry_out"] * 6 if self.todo else []
        options += ["report"] * 3 if self.out else []
        options += ["stage"] if self.staged else []
        options += ["publish"] if self.publishing else []
        options += ["finish_one_foreign"] if self.foreign else []
        options += ["cancel"] if self.core.live else []
        options += ["close"] if self.data.draw(st.integers(0, 40)) == 40 else []
        getattr(self, self.data.draw(st.sampled_from(options)))()
        self.settle()

    def submit(self) -> None:
        definition = self.definition()
        task = Task(len(self.tasks), definition, (), {}, NO_OPTIONS, AppFuture(len(self.tasks)))
        parents = self.data.draw(st.lists(st.sampled_from(self.tasks), max_size=3)) if self.tasks else []
        sources: list[Task | SharedParents] = list(parents)
        if parents and self.data.draw(st.booleans()):
            junction, parents = self.meet(parents)
            sources = [junction]
        foreign = self.data.draw(st.integers(0, 1))
        if definition.kind is AppKind.JOIN:
            task.more().joins = True
        self.tasks.append(task)
        self.parents[task.tid] = parents
        if parents or foreign or definition.cache or task.details is not None:
            if foreign:
                self.foreign[task.tid] = foreign
            self.core.submitted((task, sources, foreign, []))
        else:
            task.executor = cast(Any, EXECUTORS[0])
            self.core.submitted_placed(task)

    def meet(self, parents: list[Task]) -> tuple[SharedParents, list[Task]]:
        """Return a junction for these parents, or one of earlier calls with its parents, open or not."""
        if self.junctions and self.data.draw(st.booleans()):
            return self.data.draw(st.sampled_from(self.junctions))
        junction = SharedParents(())
        self.core.meeting((junction, parents))
        self.junctions.append((junction, parents))
        return self.junctions[-1]

    def definition(self) -> AppDefinition:
        kind = self.data.draw(st.sampled_from([AppKind.PYTHON, AppKind.PYTHON, AppKind.JOIN]))
        cache = self.data.draw(st.booleans())
        rerun = self.data.draw(st.integers(0, 4)) > 0
        return AppDefinition(nothing, "app", kind, None, cache, AppIdentity("app", nothing), rerun)

    def report(self) -> None:
        key = self.data.draw(st.sampled_from(sorted(self.out)))
        if self.data.draw(st.integers(0, 2)) == 0:
            self.core.started([(TryKey(key), 1, FAIR)])
            return
        del self.out[key]
        verdict = self.data.draw(st.sampled_from([Verdict.OK] * 4 + list(Verdict)))
        outcome = Outcome(TryKey(key), verdict, value=object())
        if verdict is Verdict.APP_ERROR:
            outcome.error = ValueError(f"try {key}")
        elif verdict is Verdict.REFUSED:
            outcome.error = TypeError(f"refused {key}")
        elif verdict is Verdict.LOST:
            outcome.loss = Loss(self.data.draw(st.sampled_from(list(LossKind))), FAIR, signal=9)
        self.core.finished([outcome, outcome] if self.data.draw(st.booleans()) else [outcome])

    def stage(self) -> None:
        task = self.staged.pop(self.data.draw(st.integers(0, len(self.staged) - 1)))
        self.core.staged((task, OSError("no file") if self.data.draw(st.integers(0, 3)) == 0 else None))

    def publish(self) -> None:
        task = self.publishing.pop(self.data.draw(st.integers(0, len(self.publishing) - 1)))
        value = self.values[task.tid]
        error = OSError("no room") if self.data.draw(st.integers(0, 3)) == 0 else None
        details = task.more()
        if error is None and details.memo_key is not None and not task.state.final:
            self.memory[details.memo_key.digest] = value
        self.core.published((task, value, error))

    def finish_one_foreign(self) -> None:
        self.finish_foreign(self.data.draw(st.sampled_from(sorted(self.foreign))))

    def cancel(self) -> None:
        task = self.core.live[self.data.draw(st.sampled_from(sorted(self.core.live)))]
        before = task.state
        was_started = task.started
        kill = self.data.draw(st.booleans())
        at_rest = before in (State.joining, State.staging)  # nothing of it runs, though it has started
        can_be_killed = at_rest or bool(task.key and task.executor and task.executor.kills)
        told = self.core.cancel(task, kill=kill)
        assert told == (not was_started or (kill and can_be_killed)), f"cancel in {before.name}"
        if told:
            self.promised.add(task)
        assert (task.state is State.cancelled) == (not was_started or (kill and at_rest))

    def close(self) -> None:
        self.core.close()

    # -- carrying out effects

    def settle(self) -> None:
        """Do what the reactor does under its lock, and leave the effects for later."""
        check(self.core)
        self.look()
        self.todo += self.core.effects
        self.core.effects = []

    def carry_out(self) -> None:
        """Carry out one effect; other threads may be at others, so any may be next."""
        effect, task, given_ = self.todo.pop(self.data.draw(st.integers(0, len(self.todo) - 1)))
        getattr(self, f"do_{effect.name.lower()}")(task, given_)

    def look(self) -> None:
        ended, self.core.ended = self.core.ended, []
        for task in ended:
            assert task.state.final
            assert task.tid not in self.ends, f"{task!r} ended twice"
            self.ends.append(task.tid)
            self.check_end(task)

    def check_end(self, task: Task) -> None:
        good = task.state in (State.exec_done, State.memo_done)
        assert good == (task.error is None)
        if task.state is State.dep_fail:
            assert isinstance(task.error, DependencyError)
            assert task.error.__cause__ is not None
            assert not isinstance(task.error.__cause__, (DependencyError, JoinError))
        if task.state is State.cancelled:
            assert isinstance(task.error, CancelledError)
        if good:
            assert all(parent.state in (State.exec_done, State.memo_done) for parent in self.parents[task.tid])

    def do_prepare(self, task: Task, _given: object) -> None:
        if task.app.cache:
            digest = bytes([self.data.draw(st.integers(0, 2))])
            task.more().memo_key = MemoKey(digest)
            self.core.keyed(task)
        else:
            self.do_place(task, None)

    def do_look_up(self, task: Task, _given: object) -> None:
        digest = cast(MemoKey, task.more().memo_key).digest
        if digest in self.memory:
            self.core.remembered((task, self.memory[digest]))
        else:
            self.do_place(task, None)

    def do_place(self, task: Task, _given: object) -> None:
        refused = task.details.refused_by if task.details is not None else set()
        willing = [executor for executor in EXECUTORS if executor.label not in refused]
        if not willing:
            self.core.unplaced((task, TypeError("nobody takes it")))
            return
        task.executor = cast(Any, willing[0])
        if self.data.draw(st.integers(0, 3)) == 0 and not task.state.final:
            self.core.staging(task)
            self.staged.append(task)
        else:
            self.core.placed(task)

    def do_launch(self, task: Task, key: int) -> None:
        assert key not in self.launches, "a key was used twice"
        self.launches.add(key)
        if task.state.final:
            return
        for parent in self.parents[task.tid]:
            assert parent.state in (State.exec_done, State.memo_done), f"{task!r} started before {parent!r}"
        if task.key != key:
            return
        if self.data.draw(st.integers(0, 9)) == 0:
            self.core.not_launched((task, key, RuntimeError("closed")))
        else:
            self.out[key] = task

    def do_retry_cost(self, task: Task, error: BaseException) -> None:
        self.core.priced((task, self.data.draw(st.sampled_from([0.0, 0.5, 1.0, 9.0])), error))

    def do_join(self, task: Task, _value: object) -> None:
        inner = [self.tasks[tid] for tid in self.data.draw(st.lists(st.integers(0, len(self.tasks) - 1), max_size=3))]
        inner = [other for other in inner if not self.reaches(other, task)]
        self.joined.setdefault(task.tid, []).extend(inner)
        self.core.joining((task, inner, 0, []))

    def reaches(self, start: Task, goal: Task) -> bool:
        """Tell whether a task waits for another, through whatever: joining it would be the user's own circle."""
        if start is goal:
            return True
        if start.state.final:
            return False
        key = start.more().memo_key
        leaders = (
            []
            if key is None
            else [t for t in self.tasks if t.details and t.details.leads and t.details.memo_key == key]
        )
        ahead = [*self.parents[start.tid], *self.joined.get(start.tid, []), *leaders]
        may_follow = start.app.cache and start.state in (State.unsched, State.pending) and goal.app.cache
        return may_follow or any(self.reaches(other, goal) for other in ahead if other is not start)

    def do_unwrap(self, task: Task, _given: object) -> None:
        self.core.joined((task, object()))

    def do_stage_out(self, task: Task, value: object) -> None:
        self.values[task.tid] = value
        if self.data.draw(st.booleans()):
            self.core.publishing(task)
        self.publishing.append(task)

    def do_share(self, task: Task, value: object) -> None:
        self.core.remembered((task, value))

    def do_cancel(self, task: Task, given_: Any) -> None:
        _executor, key, kill = given_
        if kill and key in self.out:
            del self.out[key]
            self.core.finished([Outcome(TryKey(key), Verdict.CANCELLED)])

    def do_unstage(self, task: Task, _given: object) -> None:
        assert task.state.final, "files are moved no more, and the task goes on"

    def ignore(self, _task: Task, _given: object) -> None:
        return None

    do_changed = do_try_started = do_try_ended = ignore

    # -- the end

    def run_out(self) -> None:
        """Let everything go well from here on: nothing may be left."""
        while self.todo or self.out or self.staged or self.publishing or self.foreign:
            while self.todo:
                self.carry_out()
                self.settle()
            for tid in list(self.foreign):
                self.finish_foreign(tid)
            for task in self.staged:
                self.core.staged((task, None))
            self.staged = []
            waiting, self.publishing = self.publishing, []
            for task in waiting:
                self.core.published((task, self.values[task.tid], None))
            outcomes = [Outcome(TryKey(key), Verdict.OK, value=key) for key in self.out]
            self.out = {}
            self.core.finished(outcomes)
            self.settle()
        assert self.core.live == {}, "tasks were forgotten"
        assert self.core.tries == {}
        assert len(self.core._in_flight) == 0
        assert sorted(self.ends) == [task.tid for task in self.tasks]
        assert sum(self.core.counts.values()) == len(self.tasks)
        assert {task.state for task in self.promised} <= {State.cancelled}
        for task in self.tasks:
            assert task.children is None
        for junction, _ in self.junctions:
            assert (junction.waiting, junction.children) == (0, None)

    def finish_foreign(self, tid: int) -> None:
        del self.foreign[tid]
        failure = ("a future", KeyError("foreign"), None) if self.data.draw(st.integers(0, 3)) == 0 else None
        self.core.foreign_done((self.tasks[tid], failure))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.booleans())
def test_every_task_ends_once_after_its_parents_and_none_is_forgotten(data: st.DataObject, lazy: bool) -> None:
    world = World(data, lazy)
    for _ in range(data.draw(st.integers(1, 40))):
        world.step()
    world.run_out()


def test_effects_have_a_way_to_be_carried_out() -> None:
    for effect in Effect:
        assert hasattr(World, f"do_{effect.name.lower()}")
