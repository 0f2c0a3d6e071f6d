"""Names of log files, and resource specifications."""

from __future__ import annotations

import copy
import pickle
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, strategies as st

from flow_core.apps.decorators import bash_app
from flow_core.apps.definition import CallOptions
from flow_core.apps.special import AUTO_LOGNAME, auto_name, resolve_streams, task_spec
from flow_core.errors import ConfigurationError
from flow_core.interfaces.call import DEFAULT_SPEC
from flow_core.interfaces.container import Container


@bash_app
def compute() -> str:
    return "true"


def resolved(options: CallOptions, tid: int) -> tuple[object, object]:
    return resolve_streams(options, lambda kind: auto_name(kind, compute.definition.name, options.label, tid, "/r"))


def test_streams_that_are_not_asked_for_stay_away() -> None:
    assert resolved(CallOptions(), 1) == (None, None)


def test_auto_lognames_lie_in_the_run_directory_by_task_number() -> None:
    options = CallOptions(stdout=AUTO_LOGNAME, stderr=(AUTO_LOGNAME, "w"))
    assert resolved(options, 7) == (
        "/r/task_logs/0000/task_0007_compute.stdout",
        ("/r/task_logs/0000/task_0007_compute.stderr", "w"),
    )


def test_a_directory_of_logs_holds_ten_thousand_tasks() -> None:
    stdout, _ = resolved(CallOptions(stdout=AUTO_LOGNAME), 1_234_567)
    assert stdout == "/r/task_logs/0123/task_1234567_compute.stdout"


def test_a_label_is_part_of_the_name_and_cannot_leave_the_directory() -> None:
    options = CallOptions(stdout=AUTO_LOGNAME, label="../../etc/x y")
    stdout, _ = resolved(options, 0)
    assert stdout == "/r/task_logs/0000/task_0000_compute_..-..-etc-x-y.stdout"


def test_other_streams_stay_as_they_are() -> None:
    options = CallOptions(stdout="a", stderr=("b", "w"))
    assert resolved(options, 0) == ("a", ("b", "w"))


def test_auto_logname_is_one_object_wherever_it_travels() -> None:
    assert pickle.loads(pickle.dumps(AUTO_LOGNAME)) is AUTO_LOGNAME
    assert copy.deepcopy(AUTO_LOGNAME) is AUTO_LOGNAME
    assert repr(AUTO_LOGNAME) == "AUTO_LOGNAME"


def test_nothing_asked_for_is_the_default_class() -> None:
    assert task_spec("f") is DEFAULT_SPEC
    assert task_spec("f", None, {}) is DEFAULT_SPEC


def test_all_keys_of_a_specification_arrive() -> None:
    spec = task_spec(
        "f",
        60,
        {
            "cores": 2,
            "memory": 1000,
            "gpus": 1,
            "disk": 5,
            "priority": -1,
            "running_time_min": 30,
            "environment": {"B": "2", "A": "1"},
            "container": "img",
            "named": {"licence": 1},
        },
    )
    resources = spec.resources
    assert (resources.cores, resources.memory_mb, resources.gpus, resources.disk_mb) == (2.0, 1000, 1.0, 5)
    assert (resources.nodes, resources.ranks_per_node, resources.ranks) == (1, 1, None)
    assert resources.named == (("licence", 1.0),)
    assert (spec.priority, spec.running_time_min_s, spec.walltime_s) == (-1, 30.0, 60.0)
    assert spec.container == Container("img")
    assert spec.environment == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(
    ("asked", "nodes", "each", "ranks"),
    [
        ({"nodes": 2}, 2, 1, 2),
        ({"num_nodes": 2, "ranks_per_node": 4}, 2, 4, 8),
        ({"nodes": 2, "num_ranks": 8}, 2, 4, 8),
        ({"nodes": 3, "ranks": 7}, 3, 3, 7),
        ({"ranks": 7, "ranks_per_node": 4}, 2, 4, 7),
        ({"nodes": 2, "ranks_per_node": 4, "ranks": 8}, 2, 4, 8),
        ({"ranks": 8}, 1, 1, 8),
        ({"ranks_per_node": 4, "cores": 1, "gpus": 0}, 1, 4, 4),
        ({"exclusive": True}, 1, 1, 1),
        ({"cores_per_rank": 4}, 1, 1, 1),
    ],
)
def test_what_is_asked_for_ranks_is_completed(asked: dict[str, Any], nodes: int, each: int, ranks: int) -> None:
    resources = task_spec("f", None, asked).resources
    assert (resources.nodes, resources.ranks_per_node, resources.ranks) == (nodes, each, ranks)


def test_what_each_rank_takes_arrives() -> None:
    asked = {"ranks": 2, "cores_per_rank": 3, "gpus_per_rank": 0.5, "exclusive": True, "memory": 100}
    resources = task_spec("f", None, asked).resources
    assert (resources.cores_per_rank, resources.gpus_per_rank, resources.exclusive) == (3.0, 0.5, True)
    assert (resources.cores, resources.gpus, resources.memory_mb) == (1.0, 0.0, 100)


def test_a_task_without_ranks_has_no_field_of_ranks() -> None:
    resources = task_spec("f", None, {"cores": 2, "exclusive": False, "gpus_per_rank": 0}).resources
    assert (resources.ranks, resources.cores_per_rank, resources.gpus_per_rank, resources.exclusive) == (None,) * 4


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"nodes": 2, "cores": 4}, "'cores' is that of a task without ranks, and 'nodes' makes it one.*cores_per_rank"),
        ({"ranks": 2, "gpus": 1}, "'gpus' is that of a task without ranks.*gpus_per_rank"),
        ({"nodes": 2, "num_nodes": 2}, "'nodes' and 'num_nodes' are one"),
        ({"nodes": 2, "ranks_per_node": 4, "ranks": 6}, "2 'nodes' with 4 'ranks_per_node' are 8 'ranks', not 6"),
        ({"nodes": 4, "ranks": 3}, "3 'ranks' leave some of its 4 'nodes' without one"),
        ({"nodes": 10**6, "ranks_per_node": 10**6}, "more than"),
        ({"exclusive": 1}, "'exclusive' must be True or False"),
    ],
)
def test_contradictions_of_ranks_are_refused_by_name(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"app 'f'.*{named}"):
        task_spec("f", None, asked)


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match=r"app 'f': unknown resource 'core': did you mean 'cores'\?"):
        task_spec("f", None, {"core": 1})


@pytest.mark.parametrize(
    "resources",
    [
        {"cores": -1},
        {"cores": True},
        {"cores": "2"},
        {"memory": float("nan")},
        {"priority": 1.5},
        {"nodes": 0},
        {"environment": {"A": 1}},
        {"environment": {"A=B": "1"}},
        {"environment": ["A"]},
        {"container": ""},
        {"named": ["x"]},
        {"named": {"x": 10**400}},
        {"priority": 2**64},
        {"priority": -(2**64)},
        {"priority": 10**5000},
        {"nodes": 2**63},
        {"memory": 1e30},
        {"memory": 10**400},
        {"cores": 10**5000},
        {"environment": {"A": "\ud800"}},
        {"environment": {"\ud800": "a"}},
        ["cores"],
    ],
)
def test_impossible_resources_are_refused_by_name(resources: Any) -> None:
    with pytest.raises(ConfigurationError, match="app 'f'"):
        task_spec("f", None, resources)


@pytest.mark.parametrize(("asked", "taken"), [(0.9, 1), (0.5, 1), (1.9, 2), (2, 2), (0, 0)])
def test_parts_of_a_mebibyte_are_rounded_up(asked: float, taken: int) -> None:
    resources = task_spec("f", None, {"memory": asked, "disk": asked}).resources
    assert (resources.memory_mb, resources.disk_mb) == (taken, taken)


def test_a_member_of_an_enumeration_is_handed_on_as_its_number() -> None:
    class Urgency(IntEnum):
        HIGH = 7

    assert type(task_spec("f", None, {"priority": Urgency.HIGH}).priority) is int
    assert task_spec("f", None, {"priority": Urgency.HIGH}).priority == 7


def test_a_number_that_cannot_be_hashed_is_taken_as_its_value() -> None:
    class Odd(int):
        def __hash__(self) -> int:
            raise RuntimeError("no hash")

    spec = task_spec("f", None, {"priority": Odd(3), "nodes": Odd(1)})
    assert spec is task_spec("f", None, {"priority": 3, "nodes": 1})


def test_times_in_nanoseconds_are_priorities() -> None:
    assert task_spec("f", None, {"priority": -1_796_000_000_000_000_000}).priority == -1_796_000_000_000_000_000


def test_true_is_no_number_also_after_a_one_was_seen() -> None:
    task_spec("f", 1, {"cores": 1})
    with pytest.raises(ConfigurationError, match="'cores'"):
        task_spec("f", 1, {"cores": True})


@pytest.mark.parametrize("walltime", [0, -1, True, "3", float("inf"), float("nan")])
def test_impossible_walltimes_are_refused(walltime: Any) -> None:
    with pytest.raises(ConfigurationError, match="walltime"):
        task_spec("f", walltime)


@given(
    st.dictionaries(st.sampled_from(["cores", "gpus"]), st.floats(0, 100)),
    st.one_of(st.none(), st.floats(0.1, 1e6)),
)
def test_equal_requests_share_one_object(resources: dict[str, float], walltime: float | None) -> None:
    backwards = dict(reversed(list(resources.items())))
    assert task_spec("f", walltime, resources) is task_spec("g", walltime, backwards)
