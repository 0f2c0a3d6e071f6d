"""A whole run of the kernel, monitored; and the contract of sinks."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_core import Config, join_app, load, python_app
from flow_core.interfaces.sinks import EventSink
from flow_core.testing.contracts import SinkContract
from flow_monitor import MonitoringHub, open_database
from flow_monitor.queries import graph, tasks, workflows
from flow_monitor.queries.records import RunState


@python_app
def double(x: int) -> int:
    return 2 * x


@python_app
def fail(x: int) -> int:
    raise ValueError(f"not {x}")


@join_app
def spread(given: int, numbers: list[int]):  # type: ignore[no-untyped-def] # a list of futures
    return [double(double(number)) for number in numbers]


class TestTheHubIsASink(SinkContract):
    def make_sink(self, directory: Path) -> EventSink:
        return MonitoringHub(logging_endpoint=f"sqlite:///{directory / 'monitoring.db'}")


def test_a_run_of_the_kernel_is_in_the_database(tmp_path: Path) -> None:
    hub = MonitoringHub(workflow_name="kernel test")
    with load(Config(run_dir=str(tmp_path / "runinfo"), monitoring=hub, retries=1)):
        good = [double(double(i)) for i in range(10)]
        bad = fail(good[0])
        dependent = double(bad)
        assert [future.result() for future in good] == [4 * i for i in range(10)]
        for future in (bad, dependent):
            with pytest.raises(Exception, match="not 0"):
                future.result()
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        assert (run.name, run.state) == ("kernel test", RunState.FAILED)
        assert workflows.counts_by_state(connection, run.run_id) == {"exec_done": 20, "failed": 1, "dep_fail": 1}
        apps = {app.name: app.count for app in workflows.apps(connection, run.run_id)}
        assert apps == {"double": 21, "fail": 1}
        failed = tasks.page(connection, run.run_id, tasks.TaskFilter(states=("failed",))).items[0]
        detail = tasks.one(connection, run.run_id, failed.task_id)
        assert [one.verdict for one in detail.tries] == ["APP_ERROR", "APP_ERROR"]
        assert "not 0" in detail.traceback
        assert len(detail.task.depends) == 1
        assert detail.dependents_total == 1


def test_a_join_task_is_tied_to_what_it_made_and_waited_for(tmp_path: Path) -> None:
    with load(Config(run_dir=str(tmp_path / "runinfo"), monitoring=MonitoringHub())):
        assert spread(double(1), [1, 2]).result() == [4, 8]
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        first, join, *made = graph.tasks(connection, run.run_id)
        assert (first.app, join.app) == ("double", "spread")
        assert [task.parent for task in made] == [join.task_id] * 4
        assert sorted(join.waits_for) == [task.task_id for task in made if task.depends]
        assert graph.apps(connection, run.run_id).joins == (("spread", "double", 4),)
