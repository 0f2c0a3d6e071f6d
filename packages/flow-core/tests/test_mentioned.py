"""Code that a pickle mentions, and arguments whose pickle is sent as it is, with that code beside it."""

from __future__ import annotations

import collections
import datetime
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from flow_core.remote import by_value
from flow_core.remote.callables import arrived_by_name
from flow_core.remote.functions import BY_VALUE
from flow_core.remote.mentioned import mentioned


class Outer:
    class Inner:
        """In another class."""

    def __init__(self, value: object = 1) -> None:
        self.value = value


def dumped(value: object) -> bytes:
    return pickle.dumps(value, 5)


def test_classes_and_functions_are_found_by_module_and_path() -> None:
    assert mentioned(dumped([Outer(2), Outer(3)])) == {(__name__, "Outer"): Outer}
    assert mentioned(dumped((Outer.Inner(), 1.5, "text"))) == {(__name__, "Outer.Inner"): Outer.Inner}
    assert mentioned(dumped({"key": Fraction(1, 3)})) == {("fractions", "Fraction"): Fraction}
    assert mentioned(dumped(datetime.date(2020, 1, 2))) == {("datetime", "date"): datetime.date}
    assert mentioned(dumped(len)) == {("builtins", "len"): len}
    assert mentioned(dumped([1, "text", b"data"])) == {}


def test_a_name_that_the_pickle_has_elsewhere_is_not_guessed() -> None:
    data = dumped([Outer(), Outer.Inner()])  # the second name of the module is a reference to the first
    assert data.count(b"\x93") == 2
    assert mentioned(data) is None


@pytest.mark.parametrize(
    "value",
    [b"\x93", "\u0153", 0x93_0000, b"\x8c\x01a\x94\x8c\x01b\x94\x93", b"\x8c\x09os\x94\x8c\x04path\x94\x93"],
)
def test_data_that_looks_like_a_name_hides_none(value: object) -> None:
    found = mentioned(dumped([Outer(value), value]))
    assert found is None or found[__name__, "Outer"] is Outer


def test_a_pickle_in_a_pickle_is_left_as_it_is_and_its_code_counts_too() -> None:
    inner = dumped(Fraction(2, 3))
    data = dumped([Outer(inner)])
    assert mentioned(data) == {(__name__, "Outer"): Outer, ("fractions", "Fraction"): Fraction}
    (arrived,) = arrived_by_name(data, (), (), (), ())  # type: ignore[misc]  # a list of one
    assert pickle.loads(arrived.value) == Fraction(2, 3)


def test_what_is_long_is_left_to_others() -> None:
    assert mentioned(dumped([Outer(), "x" * 70_000])) is None


def other(make: Callable[[], Any]) -> bytes:
    """Return what travels by value of what a function gives."""
    return BY_VALUE + by_value.dumps(make())


def newer() -> type:
    def twice(self: Any) -> Any:
        return self.value * 2

    return type("Outer", (), {"twice": twice, "__module__": "somewhere_else"})


def test_code_that_was_sent_stands_for_that_of_its_name_here() -> None:
    data = dumped([Outer(21), collections.Counter("aab")])
    (one, counter) = arrived_by_name(data, (), ((__name__, "Outer", other(newer)),), (), ())  # type: ignore[misc]
    assert type(one) is not Outer
    assert (one.twice(), counter) == (42, {"a": 2, "b": 1})
    (same, _) = arrived_by_name(data, (), (), (), ())  # type: ignore[misc]  # a list of two
    assert type(same) is Outer
