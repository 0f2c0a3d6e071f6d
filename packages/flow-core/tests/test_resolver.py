from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from flow_core.errors import HiddenFutureError
from flow_core.graph.resolver import DEEP, one_level, refuse_hidden, shallow

Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Settings:
    value: Any
    rest: list[Any] = field(default_factory=list)


def done(value: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def result(future: Future[Any]) -> object:
    return future.result(0)


def test_the_shallow_way_resolves_only_the_value_itself() -> None:
    future = done(1)
    assert shallow(future, result) == 1
    hidden = [future]
    assert shallow(hidden, result) is hidden


def test_one_level_resolves_items() -> None:
    inner = [done(9)]
    assert one_level([done(1), 2, inner], result) == [1, 2, inner]
    assert one_level((done(1),), result) == (1,)
    assert one_level({"a": done(1)}, result) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([done(1), [done(2)]], [1, [2]]),
        ((done(1), {"k": done(2)}), (1, {"k": 2})),
        ({done("key"): 1}, {"key": 1}),
        ({done(1), 2}, {1, 2}),
        (frozenset((done(1),)), frozenset((1,))),
        (Pair(done(1), [done(2)]), Pair(1, [2])),
        (Settings(done(1), [done(2)]), Settings(1, [2])),
        (OrderedDict(a=done(1)), OrderedDict(a=1)),
        (defaultdict(list, a=done(1)), defaultdict(list, a=1)),
    ],
)
def test_the_deep_way_resolves_at_any_depth(value: object, wanted: object) -> None:
    resolved = DEEP(value, result)
    assert resolved == wanted
    assert type(resolved) is type(wanted)


@pytest.mark.parametrize("value", [[1, [2]], {"a": (1,)}, {1, 2}, Settings(1), "text", Settings, object()])
def test_what_holds_no_future_stays_the_same_object(value: object) -> None:
    assert DEEP(value, result) is value


def test_a_circle_does_not_hang() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert DEEP(circle, result) is circle
    refuse_hidden("xs", circle)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([0, 1, 2, done(1)], r"xs\[3\]"),
        ({"a": [done(1)]}, r"xs\['a'\]\[0\]"),
        ((1, {2: (done(1),)}), r"xs\[1\]\[2\]\[0\]"),
        ([{done(1)}], r"xs\[0\]\{\.\.\.\}"),
    ],
)
def test_a_hidden_future_is_an_error_that_names_its_path(value: object, path: str) -> None:
    with pytest.raises(HiddenFutureError, match=rf"argument '{path}'.*inputs="):
        refuse_hidden("xs", value)


def test_plain_containers_are_let_through() -> None:
    refuse_hidden("xs", [1, "a", None, {"b": (2, 3.0)}])
    refuse_hidden("xs", done(1))
