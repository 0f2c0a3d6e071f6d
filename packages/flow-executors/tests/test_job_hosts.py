"""Managers on hosts that are none of their job's."""

from __future__ import annotations

from flow_executors.scaling.job_hosts_core import JobHosts, Joined


def manager(block: str, node: str) -> Joined:
    return Joined(block, f"manager@{node}", node, "10.0.0.9")


def test_a_manager_on_none_of_its_jobs_nodes_is_told_once() -> None:
    hosts = JobHosts()
    for node in ("n1", "thief"):
        hosts.joined(manager("0", node))
    assert hosts.elsewhere("0", ("n1", "n2")) == [(manager("0", "thief"), ("n1", "n2"))]
    assert hosts.elsewhere("0", ("n1", "n2")) == []


def test_nodes_are_compared_when_the_scheduler_tells_them() -> None:
    hosts = JobHosts()
    hosts.joined(manager("0", "n1"))
    hosts.joined(manager("0", "thief"))
    assert hosts.elsewhere("0", ()) == []
    assert [one.node for one, _ in hosts.elsewhere("0", ("n1",))] == ["thief"]


def test_domains_and_capitals_make_no_other_host_but_addresses_do() -> None:
    hosts = JobHosts()
    for node in ("N1.cluster.example", "10.0.0.2"):
        hosts.joined(manager("0", node))
    assert [one.node for one, _ in hosts.elsewhere("0", ("n1", "10.0.0.1"))] == ["10.0.0.2"]


def test_nobody_is_suspected_where_the_scheduler_calls_all_nodes_otherwise() -> None:
    hosts = JobHosts()
    for block in ("0", "1"):
        hosts.joined(manager(block, f"pod-{block}"))
        assert hosts.elsewhere(block, ("worker-a",)) == []


def test_who_came_before_the_first_manager_that_is_where_it_should_be_is_told_then() -> None:
    hosts = JobHosts()
    hosts.joined(manager("0", "thief"))
    assert hosts.elsewhere("0", ("n1",)) == []
    hosts.joined(manager("1", "n2"))
    assert hosts.elsewhere("1", ("n2",)) == [(manager("0", "thief"), ("n1",))]


def test_managers_of_blocks_that_have_ended_are_forgotten() -> None:
    hosts = JobHosts()
    hosts.joined(manager("0", "n1"))
    hosts.joined(manager("0", "thief"))
    hosts.forget("0")
    assert hosts.elsewhere("0", ("n1",)) == []
