"""Pickles that surely call nothing of the user's are told from others."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import pickle
from collections import Counter, OrderedDict, deque

import pytest

from flow_core.remote.naming import NamesOthers, loads_known, names_globals

CALLED: list[str] = []


class Mine:
    def __reduce__(self) -> object:
        return CALLED.append, ("called",)


class Numbers(list[int]):
    pass


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2020, 1, 1), decimal.Decimal("1.5"), pathlib.Path("/x"), {1, 2}, 3 + 4j, range(5),
        OrderedDict(a=1), Counter("aab"), deque([1, 2], 5), [datetime.timedelta(1), frozenset((1,))], bytearray(b"x"),
    ],
)  # fmt: skip
def test_values_of_known_libraries_are_unpickled(value: object) -> None:
    data = pickle.dumps(value, 5)
    assert loads_known(data) == value


def test_arrays_are_known_and_arrays_of_other_objects_are_not() -> None:
    numpy = pytest.importorskip("numpy")
    assert loads_known(pickle.dumps(numpy.arange(5), 5)).tolist() == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]
    objects = numpy.empty(1, dtype=object)
    objects[0] = Numbers()
    with pytest.raises(NamesOthers):
        loads_known(pickle.dumps(objects, 5))


@pytest.mark.parametrize("value", [Mine(), [1, Mine()], Numbers(), test_values_of_known_libraries_are_unpickled, print])
def test_what_is_not_known_is_not_called(value: object) -> None:
    data = pickle.dumps(value, 5)
    CALLED.clear()
    assert names_globals(data)
    with pytest.raises(NamesOthers):
        loads_known(data)
    assert CALLED == []


def test_what_is_long_is_not_begun() -> None:
    with pytest.raises(NamesOthers):
        loads_known(pickle.dumps([datetime.date(2020, 1, 1)] * 2 + ["x" * 70_000], 5))
