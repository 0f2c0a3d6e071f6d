"""What arrives is what was sent: also the attributes of objects whose own pickles leave them out."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import pickle
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.memo.identity import ValueFindings, encoded as encoded_argument
from flow_core.memo.stored import hold
from flow_core.remote import by_value
from flow_core.remote.bringing import pickled_arguments
from flow_core.remote.contents import contents
from flow_core.remote.parcel import pack_task, unpack_result
from flow_core.remote.parcel_run import run_parcel
from flow_core.remote.pickling_attributes import dumps
from flow_core.snapshot.finder import FunctionLooks

np = pytest.importorskip("numpy")


def subclass(base: type, **members: Any) -> Any:
    """Return a class of this module."""
    made = type(f"Own{base.__name__.title()}", (base,), {"__module__": __name__, **members})
    globals()[made.__name__] = made
    return made


class Array(np.ndarray):  # type: ignore[misc,name-defined]  # of a module that may lack
    """An array with attributes."""


class Slotted(datetime.date):
    """A class with slots, one of which pickle would not find by its name."""

    __slots__ = ("__hidden", "note")

    def hide(self, value: object) -> None:
        self.__hidden = value

    def hidden(self) -> object:
        return self.__hidden


class Pair(NamedTuple):
    """The base of a tuple with attributes."""

    one: int
    two: int


class OwnPair(Pair):
    """A tuple with attributes."""


class Colour(enum.Enum):
    """Its members are the same everywhere."""

    RED = 1


@dataclasses.dataclass
class Record:
    """An object that says nothing of its pickle."""

    value: int = 1


class Silent(fractions.Fraction):
    """A class that wants its attributes left out."""

    def __reduce__(self) -> Any:
        return Silent, (str(self),)


MADE: dict[str, Callable[[], Any]] = {
    "datetime": functools.partial(subclass(datetime.datetime), 2020, 1, 2),
    "date": functools.partial(subclass(datetime.date), 2020, 1, 2),
    "time": functools.partial(subclass(datetime.time), 1),
    "timedelta": functools.partial(subclass(datetime.timedelta), 1),
    "Decimal": functools.partial(subclass(decimal.Decimal), "1.5"),
    "Fraction": functools.partial(subclass(fractions.Fraction), 1, 2),
    "defaultdict": functools.partial(subclass(collections.defaultdict), int, {1: 2}),
    "Counter": functools.partial(subclass(collections.Counter), "aab"),
    "a Counter itself": functools.partial(collections.Counter, "aab"),
    "OrderedDict": functools.partial(subclass(collections.OrderedDict), a=1),
    "deque": functools.partial(subclass(collections.deque), [1]),
    "path": functools.partial(subclass(pathlib.PurePosixPath), "a/b"),
    "address": functools.partial(subclass(ipaddress.IPv4Address), 1),
    "partial": functools.partial(subclass(functools.partial), max, 1),
    "a partial itself": functools.partial(functools.partial, max, 1),
    "array": functools.partial(subclass(array.array), "i", [1]),
    "set": functools.partial(subclass(set), [1]),
    "frozenset": functools.partial(subclass(frozenset), [1]),
    "list": functools.partial(subclass(list), [1]),
    "dict": functools.partial(subclass(dict), a=1),
    "str": functools.partial(subclass(str), "a"),
    "bytearray": functools.partial(subclass(bytearray), b"a"),
    "error": functools.partial(subclass(ValueError), "a"),
    "random": functools.partial(subclass(random.Random), 1),
    "ndarray": lambda: np.arange(3).view(Array),
    "ndarray of Fortran": lambda: np.arange(6).reshape(2, 3).T.view(Array),
    "ndarray of objects": lambda: np.array([{}, 1], dtype=object).view(Array),
    "slots": functools.partial(Slotted, 2020, 1, 2),
    "namedtuple": functools.partial(OwnPair, 1, 2),
    "dataclass": Record,
}
notes = st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=3)
around = st.sampled_from([lambda x: x, lambda x: [x], lambda x: {"k": (x, 1)}, lambda x: Record(x)])


def there_by_arguments(value: object) -> object:
    return pickle.loads(pickled_arguments(value))


def there_and_back(value: object) -> Any:
    return unpack_result(run_parcel(pack_task(returned, (value,)))).value


def returned(value: object) -> object:
    return value


WAYS: dict[str, Callable[[Any], Any]] = {
    "by value": lambda value: pickle.loads(by_value.dumps(value)),
    "by name": lambda value: pickle.loads(dumps(value)),
    "arguments": there_by_arguments,
    "remembered": lambda value: hold(value).result(),
}


def inner(value: Any) -> Any:
    """Return what is in one of the containers."""
    while type(value) in (list, dict, tuple) or (type(value) is Record and type(value.value) is not int):
        value = value.value if type(value) is Record else next(iter(value.values() if type(value) is dict else value))
    return value


def encoded(value: object) -> bytes:
    return encoded_argument("value", value, (), ValueFindings([], [])).encoded


@settings(max_examples=150, deadline=None, derandomize=True)
@given(kind=st.sampled_from(sorted(MADE)), note=notes, wrap=around, way=st.sampled_from(sorted(WAYS)))
def test_what_arrives_is_what_was_sent(kind: str, note: object, wrap: Callable[[Any], Any], way: str) -> None:
    value = MADE[kind]()
    value.note = note
    key = encoded(value)  # from here on such classes are known
    arrived = inner(WAYS[way](wrap(value)))
    assert type(arrived) is type(value)
    assert arrived.note == note
    assert encoded(arrived) == key
    assert contents(arrived) == contents(value)


@pytest.mark.parametrize("kind", ["ndarray", "ndarray of Fortran", "ndarray of objects"])
def test_the_attributes_of_an_array_come_with_a_result(kind: str) -> None:
    value = MADE[kind]()
    value.note = "a"
    assert there_and_back([value])[0].note == "a"


@pytest.mark.parametrize("kind", sorted(MADE))
def test_such_an_attribute_counts_and_is_looked_at(kind: str) -> None:
    value = MADE[kind]()
    value.note = "a"
    before, digest, there = encoded(value), contents(value), [value]
    looks = FunctionLooks(lambda: there, whole=True)
    value.note = "b"
    assert encoded(value) != before
    assert contents(value) != digest
    assert not looks.unchanged()


def test_slots_with_hidden_names_arrive() -> None:
    value = Slotted(2020, 1, 2)
    value.hide(3)
    assert pickle.loads(dumps(value)).hidden() == 3


def test_what_a_class_of_the_users_own_leaves_out_stays_out() -> None:
    value: Any = Silent(1, 2)
    value.note = 1
    for way in WAYS.values():
        assert not hasattr(way([value])[0], "note")


def test_members_of_enums_stay_the_same_objects() -> None:
    for way in WAYS.values():
        assert way([Colour.RED])[0] is Colour.RED


def test_a_view_stays_a_view() -> None:
    for view in (memoryview(b"abcd"), memoryview(array.array("i", [1, 2])), memoryview(b"")):
        there = pickle.loads(by_value.dumps([view]))[0]
        assert type(there) is memoryview
        assert there == view
        assert encoded(there) == encoded(view)


def test_objects_that_are_met_twice_or_in_themselves_stay_so() -> None:
    value = MADE["ndarray"]()
    value.note = [value]
    one, other = pickle.loads(dumps([value, value]))
    assert one is other is one.note[0]
    assert copy.copy(one).shape == one.shape
