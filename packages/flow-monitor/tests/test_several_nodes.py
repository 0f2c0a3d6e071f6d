"""A task of ranks is sampled on each of its nodes; what it uses is the sum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import Event, Sampled, TaskSubmitted, TryEnded, TryLaunched, TryStarted
from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample
from flow_monitor.project.rebuild import rebuild
from flow_monitor.queries import resources, tasks, traffic
from flow_monitor.queries.database import Database, open_database
from flow_monitor.testing.made import write_log

SECOND = 10**9
KEY = TryKey(7)
HEAD = Place("htex", "0", "n1", "m1")


def sampled(at: int, node: str, cpu_s: float, memory: int, sent: int) -> Sampled:
    sample = Sample(at * SECOND, KEY, 9, 2, 50.0, cpu_s, 0.0, memory, 1.0, 0, 0, sent, 1)
    return Sampled(at * SECOND, "htex", "0", node, f"m{node[1:]}", (sample,))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Give the database of a run with one task that used a core on each of two nodes for four seconds."""
    directory: Path = tmp_path_factory.mktemp("nodes")
    events: list[Event] = [
        TaskSubmitted(1, 0, "wide", "bash", "", ("htex",), ()),
        TryLaunched(SECOND, 0, 0, KEY, "htex"),
        TryStarted(SECOND, 0, 0, HEAD),
        sampled(2, "n1", 0.0, 100, 5),
        sampled(3, "n2", 0.0, 1000, 50),
        sampled(4, "n1", 2.0, 100, 6),
        sampled(5, "n2", 2.0, 1000, 60),
        TryEnded(6 * SECOND, 0, 0, "OK", SECOND, 5 * SECOND, "htex", HEAD, Usage(4.0, 0.0, 100, 0, 0)),
    ]
    write_log(directory / "run", "r", events)
    rebuild(directory / "run", f"sqlite:///{directory / 'm.db'}")
    with open_database(str(directory / "m.db")) as opened:
        yield opened


def test_samples_of_a_task_are_sums_over_its_nodes(database: Database) -> None:
    with database.connect() as connection:
        found = tasks.samples(connection, "r", 0)
    assert [(sample.cpu_user_s, sample.memory, sample.processes) for sample in found] == [
        (0.0, 100, 2),
        (0.0, 1100, 4),
        (2.0, 1100, 4),
        (4.0, 1100, 4),
    ]


def test_traffic_of_a_task_is_that_of_all_its_nodes(database: Database) -> None:
    with database.connect() as connection:
        assert traffic.of_tries(connection, "r", 0, 0) == {(0, 0): (66, 2)}
        assert traffic.of_apps(connection, "r") == {"wide": (66, 2)}


def test_each_node_is_shown_with_what_the_task_used_there(database: Database) -> None:
    with database.connect() as connection:
        found = resources.usage(connection, "r", resources.Grouping.NODE)
    used: dict[str, float] = {}
    for one in found:
        used[one.group] = used.get(one.group, 0.0) + one.cpu_cores * one.width_ns / SECOND
    # Of the head all that its worker reported at the end, of the other node what its samples saw.
    assert used == {"n1": pytest.approx(4.0), "n2": pytest.approx(2.0)}
