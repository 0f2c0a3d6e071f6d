"""Why tasks are not done, as far as the graph knows: each unfinished task of any graph has causes, and true ones."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings, strategies as st
from test_graph_properties import World

from flow_core.graph.states import State
from flow_core.graph.task import Task
from flow_core.graph.waiting import Awaited, causes_of
from flow_core.interfaces.waiting import Cause, CauseKind, Explanation, duration, shown_state, since

_NS = 1_000_000_000


class ExplainedWorld(World):
    """A world in which every unfinished task is explained after every event."""

    def settle(self) -> None:
        super().settle()
        for task in self.core.live.values():
            self.explain(task)

    def explain(self, task: Task) -> None:
        joining = task.state is State.joining
        parents = self.joined.get(task.tid, []) if joining else self.parents[task.tid]
        unfinished = {one.tid: one for one in parents if not one.state.final}
        awaited = [Awaited(str(one), one.state.name, one.tid) for one in unfinished.values()] if task.waiting else []
        leader = self.core.leader_of(task)
        causes = causes_of(task, awaited, leader, self.core.budgets, 2 * _NS)
        kinds = {cause.kind for cause in causes}
        assert causes
        assert all(cause.text and not cause.text.endswith(".") for cause in causes)
        assert CauseKind.DONE not in kinds
        assert (CauseKind.RUNNING in kinds) == (task.state is State.running)
        if task.waiting:
            named = {tid for cause in causes if cause.kind is CauseKind.DEPENDENCY for tid in cause.tasks}
            assert named == set(unfinished)
        if leader is not None:
            assert [cause.tasks for cause in causes if cause.kind is CauseKind.SAME_CALL] == [(leader.tid,)]
        if task.spent is not None and (task.spent.failures or task.spent.losses):
            assert CauseKind.RETRY in kinds
        if task.details is not None and task.details.failures:
            assert any("a dependency has failed" in cause.text for cause in causes)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.booleans())
def test_every_unfinished_task_has_true_causes_after_every_event(data: st.DataObject, lazy: bool) -> None:
    world = ExplainedWorld(data, lazy)
    for _ in range(data.draw(st.integers(1, 40))):
        world.step()
    world.run_out()


def test_an_explanation_is_sentences_or_one_line() -> None:
    causes = (Cause(CauseKind.QUEUED, "3 tasks are ahead of it"), Cause(CauseKind.BLOCK, "block 0 is pending"))
    explanation = Explanation("task 1 (f)", "launched", causes, 1)
    assert explanation.line == "task 1 (f) is queued: 3 tasks are ahead of it; block 0 is pending"
    assert str(explanation) == "task 1 (f) is queued:\n- 3 tasks are ahead of it.\n- block 0 is pending."
    assert not explanation.done


def test_every_state_has_a_name_for_users() -> None:
    assert all(shown_state(state.name) for state in State)
    assert shown_state("launched") == "queued"


def test_times_are_told_in_their_natural_unit() -> None:
    assert [duration(s) for s in (5, 600, 9000, 400_000)] == ["5 s", "10 min", "2.5 h", "4.6 d"]
    assert since(0, 30 * _NS).endswith("(30 s)")
    assert since(10 * _NS, 0).endswith("(0 s)")  # another machine's clock may be ahead
