"""How long the kernel bears with a connection that says nothing."""

from __future__ import annotations

from hypothesis import given, strategies as st

from flow_executors.interchange.sockets import probes


@given(st.floats(min_value=0.1, max_value=3_000_000))
def test_a_connection_outlives_the_heartbeat_threshold_and_linux_takes_the_numbers(threshold_s: float) -> None:
    every_s, count = probes(threshold_s)
    assert every_s * count >= threshold_s
    assert 1 <= every_s <= 32_767
    assert 4 <= count <= 127


def test_with_the_usual_threshold_routers_see_a_probe_every_five_seconds() -> None:
    assert probes(120) == (5, 24)
