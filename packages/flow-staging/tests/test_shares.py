"""Whose turn it is among jobs of many hosts."""

from __future__ import annotations

from hypothesis import example, given, strategies as st

from flow_staging.transfer.shares import Shares

HOSTS = "abc"
ACTS = ["add", "take", "end", "rest", "return"]
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(HOSTS)), max_size=80)


@example(1, [("add", "b"), ("add", "b"), ("add", "b"), ("take", "a"), ("rest", "b"), ("take", "a"), ("return", "b")])
@given(st.integers(1, 3), STEPS)
def test_each_host_has_its_share_and_its_order_and_nothing_is_lost(share, steps):
    shares: Shares[tuple[str, int]] = Shares(share)
    added = dict.fromkeys(HOSTS, 0)
    taken = dict.fromkeys(HOSTS, 0)
    busy = dict.fromkeys(HOSTS, 0)
    resting = dict.fromkeys(HOSTS, 0)
    back = dict.fromkeys(HOSTS, 0)
    for step, host in steps:
        if step == "add":
            shares.add(host, (host, added[host]))
            added[host] += 1
        elif step == "take":
            work = shares.take()
            may = [one for one in HOSTS if added[one] > taken[one] and busy[one] + back[one] < share]
            assert (work is None) == (not may)
            if work is not None:
                assert work[0] in may
                assert work[1] == taken[work[0]]
                taken[work[0]] += 1
                busy[work[0]] += 1
        elif step in ("end", "rest") and busy[host]:
            shares.leave(host)
            busy[host] -= 1
            resting[host] += step == "rest"
        elif step == "return" and (resting[host] or back[host]):
            if resting[host]:
                shares.returning(host)
                resting[host] -= 1
                back[host] += 1
            entered = shares.enter(host)
            assert entered == (busy[host] < share)
            back[host] -= entered
            busy[host] += entered
        ready = sum(max(0, min(share - busy[one] - back[one], added[one] - taken[one])) for one in HOSTS)
        assert shares.ready() == ready
        assert all(count <= share for count in busy.values())


def test_hosts_take_turns():
    shares: Shares[str] = Shares(10)
    for work in ["a1", "a2", "a3", "b1", "c1"]:
        shares.add(work[0], work)
    assert [shares.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "a3", None]
