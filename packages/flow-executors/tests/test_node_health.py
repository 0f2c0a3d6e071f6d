"""Which nodes are held, and that none is for what is the app's, or where there is nothing better."""

from __future__ import annotations

import random

from hypothesis import given, settings, strategies as st

from flow_executors.client.node_health_core import ALONE_S, LONG_NS, STREAK, NodeHealth

A, B = b"a" * 16, b"b" * 16
S = 1_000_000_000


def health(*nodes: str) -> NodeHealth:
    made = NodeHealth()
    for node in nodes:
        made.joined(node)
    return made


def fails(made: NodeHealth, node: str, count: int, *apps: bytes) -> list[str]:
    holds = [made.failed(node, apps[number % len(apps)]) for number in range(count)]
    return [one.why for one in holds if one is not None]


def works(made: NodeHealth, node: str, count: int, *apps: bytes) -> None:
    for number in range(count):
        assert made.succeeded(node, apps[number % len(apps)], 0, 1) is None


def test_a_node_on_which_all_fails_that_others_run_is_held_once() -> None:
    made = health("good", "bad")
    fails(made, "bad", 1, A)
    works(made, "good", 6, A)
    (why,) = fails(made, "bad", 3 * STREAK, A)
    assert "of one app, failed, while other nodes run the same" in why
    assert made.held == {"bad": why}


def test_a_node_that_failed_all_before_others_ran_any_is_held_once_they_do() -> None:
    made = health("good", "bad")
    assert not fails(made, "bad", 3 * STREAK, A)
    holds = [hold for _ in range(10) if (hold := made.succeeded("good", A, 0, 1)) is not None]
    assert [hold.node for hold in holds] == ["bad"]
    assert set(made.held) == {"bad"}


def test_a_node_on_which_several_apps_fail_is_held() -> None:
    made = health("good", "bad")
    fails(made, "bad", 1, A)
    works(made, "good", 3, A)
    (why,) = fails(made, "bad", STREAK, A, B)  # of B nobody knows
    assert "of 2 apps" in why


def test_what_fails_everywhere_is_the_apps() -> None:
    made = health("one", "two", "three")
    for node in ("one", "two", "three") * 10:
        assert not fails(made, node, STREAK, A)
    assert not made.held


def test_an_app_that_fails_now_and_then_everywhere_blames_nobody() -> None:
    made = health("one", "two")
    chance = random.Random(1)
    for _ in range(20_000):
        node = chance.choice(["one", "two"])
        if chance.random() < 0.5:
            assert made.failed(node, A) is None
        elif made.alert:
            works(made, node, 1, A)


def test_a_success_ends_the_streak() -> None:
    made = health("good", "bad")
    for _ in range(100):
        fails(made, "bad", STREAK - 1, A)
        works(made, "bad", 1, B)
        works(made, "good", 1, A)
    assert not made.held


def test_the_only_node_is_never_held() -> None:
    made = health("only")
    assert not fails(made, "only", 100, A, B)
    made.joined("other")
    made.left("other")
    for _ in range(9):  # outcomes of the other that come late
        assert made.succeeded("other", A, 0, 1) is None
    assert not fails(made, "only", 100, A)


def test_never_more_than_half_of_the_nodes_are_held() -> None:
    made = health("good", "bad", "worse", "worst")
    fails(made, "bad", 1, A)
    works(made, "good", 100, A)
    for node in ("bad", "worse", "worst"):
        fails(made, node, STREAK, A)
        works(made, "good", 200, A)
    assert len(made.held) <= 2


def test_a_node_that_is_held_is_free_when_it_is_the_only_one() -> None:
    made = health("good", "bad")
    made.hold({"bad": "it was bad"})
    assert made.tick(0.0) == []
    made.left("good")
    assert made.tick(10.0) == []
    assert made.tick(10.0 + ALONE_S) == ["bad"]
    assert not made.held


def test_nodes_that_are_held_are_not_freed_while_no_node_is_there() -> None:
    made = health()
    made.hold({"bad": "it was bad"})
    assert made.tick(0.0) == []
    assert made.tick(1000.0) == []


def test_a_node_that_was_freed_begins_anew() -> None:
    made = health("good", "bad")
    fails(made, "bad", 1, A)
    works(made, "good", 9, A)
    fails(made, "bad", STREAK, A)
    assert made.free(["bad", "good"]) == ["bad"]
    assert not fails(made, "bad", STREAK - 1, A)
    works(made, "good", 100, A)
    assert fails(made, "bad", 1, A)


def test_a_node_that_cannot_load_an_app_is_blamed_while_another_may_be_able_to() -> None:
    made = health("one", "two")
    assert made.blames("one", A)
    assert not made.blames("two", A)  # neither can: it is the app
    assert not made.blames("one", A)
    assert not health("only").blames("only", A)


def test_an_app_that_no_node_can_load_is_not_tried_on_all_of_a_hundred() -> None:
    made = health(*map(str, range(100)))
    assert [made.blames(str(number), A) for number in range(5)] == [True, True, False, False, False]


def slow(made: NodeHealth, durations: dict[str, float], rounds: int, start: float = 0.0) -> dict[str, str]:
    """Tasks one after the other on each node, all begun at the same time; the quick ones end first."""
    ends = sorted(
        (start + number * duration + duration, node, start + number * duration, duration)
        for node, duration in durations.items()
        for number in range(int(rounds * max(durations.values()) / duration))
    )
    for _, node, begin, duration in ends:
        made.succeeded(node, A, int(begin * S), int(duration * S))
    return made.held


def test_a_node_that_is_ten_times_slower_is_held() -> None:
    held = slow(health("one", "two", "slow"), {"one": 0.1, "two": 0.11, "slow": 1.5}, 20)
    assert list(held) == ["slow"]
    assert "took 1.5 s or more, while other nodes take 0.11 s" in held["slow"]


def test_a_node_that_is_five_times_slower_is_not() -> None:
    assert not slow(health("one", "two", "slow"), {"one": 0.1, "two": 0.1, "slow": 0.5}, 50)


def test_short_tasks_say_nothing() -> None:
    assert not slow(health("one", "slow"), {"one": 0.0001, "slow": LONG_NS * 0.9e-9}, 20)


def test_work_that_becomes_harder_blames_nobody() -> None:
    made = health("many", "few")
    slow(made, {"many": 0.1, "few": 0.1}, 100)
    # The last tasks are each a hundred times as long, and the node with many workers has more of them first.
    for number in range(64):
        assert made.succeeded("many", A, int((50 + number * 0.001) * S), 10 * S) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0.01, 0.05]), st.integers(2, 5))
def test_tasks_of_any_length_that_go_anywhere_blame_nobody(seed: int, long: float, count: int) -> None:
    nodes, chance = list(map(str, range(count))), random.Random(seed)
    made = health(*nodes)
    clock = dict.fromkeys(nodes, 0.0)
    for _ in range(1500):
        node = min(clock, key=clock.__getitem__)
        duration = 30.0 if chance.random() < long else chance.uniform(0.03, 0.3)
        begin = clock[node]
        clock[node] += duration
        assert made.succeeded(node, A, int(begin * S), int(duration * S)) is None


EVENTS = st.lists(
    st.tuples(st.sampled_from("jlfsbthF"), st.sampled_from("xyz"), st.sampled_from([A, B]), st.integers(0, 5 * S))
)


@given(EVENTS)
def test_whatever_happens_a_node_is_left(events: list[tuple[str, str, bytes, int]]) -> None:
    made, now, there = NodeHealth(), 0.0, {"x": 0, "y": 0, "z": 0}
    for what, node, app, duration in events:
        now += 1.0
        if what == "j":
            made.joined(node)
            there[node] += 1
        elif what == "l" and there[node]:
            made.left(node)
            there[node] -= 1
        elif what == "f":
            made.failed(node, app)
        elif what == "F":
            hold = [one for _ in range(STREAK) if (one := made.failed(node, app)) is not None]
            if hold:  # found now: at most half of those that are there
                connected = [one for one, count in there.items() if count]
                assert 2 * sum(one in made.held for one in connected) <= len(connected)
        elif what == "s":
            made.succeeded(node, app, int(now * S), duration)
        elif what == "b":
            made.blames(node, app)
        elif what == "h":
            made.hold({node: "before"})
        else:
            made.tick(now)
        assert dict(made.nodes) == {one: count for one, count in there.items() if count}
    if made.nodes:
        made.tick(now)
        made.tick(now + ALONE_S)
        assert any(node not in made.held for node in made.nodes)
