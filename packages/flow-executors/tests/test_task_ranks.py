"""What tasks of ranks ask for, and what their shares take of nodes."""

from __future__ import annotations

from hypothesis import given, strategies as st

from flow_core.apps.special import task_spec
from flow_executors.common.resources import Capacity
from flow_executors.common.task_ranks import RankPlace, RankPlacement, RankRequest


def asked(**keys: object) -> RankRequest:
    request = RankRequest.of(task_spec("app", None, keys).resources)
    assert request is not None
    return request


def test_a_task_without_ranks_asks_for_none() -> None:
    assert RankRequest.of(task_spec("app", None, {"cores": 4}).resources) is None


def test_ranks_alone_may_be_anywhere() -> None:
    assert (asked(ranks=8).nodes, asked(ranks=8).shares()) == (None, ())
    assert (asked(nodes=1, ranks=8).nodes, asked(ranks=1).nodes) == (1, 1)


def test_ranks_are_spread_evenly_with_the_larger_shares_first() -> None:
    assert asked(nodes=3, ranks=7).shares() == (3, 2, 2)
    assert asked(ranks=9, ranks_per_node=4).shares() == (3, 3, 3)


def test_a_rank_takes_a_core_or_a_worker_where_workers_share_cores() -> None:
    assert asked(ranks=6).slots(6, Capacity(8, cores_per_worker=2.0)) == 3
    assert asked(ranks=6).slots(6, Capacity(8, cores_per_worker=0.5)) == 6
    assert asked(ranks=6, cores_per_rank=2).slots(6, Capacity(32, cores_per_worker=0.5)) == 24


def test_a_task_that_has_its_nodes_to_itself_takes_all_their_workers() -> None:
    request = asked(nodes=2, exclusive=True)
    assert request.slots(1, Capacity(7)) == 7
    assert request.most_ranks(6, 0, Capacity(7)) == 0


def test_devices_of_ranks_are_parts_of_one_or_whole_ones() -> None:
    capacity = Capacity(8, devices=("0", "1", "2", "3"))
    assert asked(ranks=2, gpus_per_rank=0.5).demand(2, capacity).gpus == 1.0
    assert asked(ranks=3, gpus_per_rank=0.5).demand(3, capacity).gpus == 2.0
    assert asked(ranks=1, gpus_per_rank=0.25).demand(1, capacity).gpus == 0.25


def test_memory_is_that_of_each_node() -> None:
    assert asked(nodes=2, memory=500).demand(1, Capacity(4, memory_mb=1000)).memory_mb == 500


def test_what_a_node_can_never_take_is_named() -> None:
    capacity = Capacity(4, memory_mb=1000, devices=("0",))
    assert "room for 4" in asked(nodes=2, ranks_per_node=5).unsatisfiable_reason(capacity)
    assert "2 GPUs" in asked(ranks_per_node=2, gpus_per_rank=1).unsatisfiable_reason(capacity)
    assert "2000 MB" in asked(nodes=2, memory=2000).unsatisfiable_reason(capacity)
    assert asked(nodes=2, ranks_per_node=4).unsatisfiable_reason(capacity) == ""
    assert asked(ranks=400).unsatisfiable_reason(capacity) == ""


@given(
    st.integers(1, 64),
    st.sampled_from([0.25, 0.5, 1.0, 3.0]),
    st.sampled_from([None, 0.5, 1.0, 2.5]),
    st.integers(0, 64),
)
def test_as_many_ranks_as_have_room_fit(slots: int, each: float, cores: float | None, free: int) -> None:
    capacity = Capacity(slots, each)
    request = RankRequest(None, 1, 10**6, cores)
    most = request.most_ranks(free, 0, capacity)
    assert most == 0 or request.slots(most, capacity) <= free
    assert request.slots(most + 1, capacity) > free


def test_the_first_place_is_the_head() -> None:
    placement = RankPlacement((RankPlace(3, "n1", 2, 2), RankPlace(4, "n2", 1, 1)))
    assert (placement.head.node, placement.ranks) == ("n1", 3)
