"""Short texts of arguments: what they show, and that no code of the user's runs for them."""

from __future__ import annotations

from typing import Any

import pytest

from flow_core.files import File
from flow_core.futures.app_future import AppFuture
from flow_core.kernel.short_texts import short_text

asked: list[str] = []


def ask(*_values: object) -> Any:
    asked.append("asked")
    raise SystemExit("asked")


class Rude:
    __repr__ = __str__ = __bool__ = __len__ = __lt__ = __eq__ = __getattr__ = ask
    __class__ = property(ask)  # type: ignore[assignment]

    def __hash__(self) -> int:
        return 1 if not asked else ask()


class RudeList(list[int]):
    __iter__ = __len__ = __repr__ = __getitem__ = ask


class RudeText(str):
    __len__ = __repr__ = __str__ = __getitem__ = ask


class RudeFuture(AppFuture[int]):
    tid = property(ask)  # type: ignore[assignment]

    def __init__(self) -> None:
        pass


def of_rude_metaclass() -> object:
    class RudeMeta(type):
        def __getattribute__(cls, name: str) -> Any:
            ask()

    class Made(metaclass=RudeMeta):  # not of the module: pytest looks at all that is there
        pass

    return Made()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"),
        ((1,), "(1,)"),
        ([], "[]"),
        (set(), "set()"),
        ({3}, "{3}"),
        (frozenset({3}), "frozenset({3})"),
        ({"a": None}, "{'a': None}"),
        ([[[[1]]], [[[]]]], "[[[[...]]], [[[]]]]"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        (dict.fromkeys(range(100)), "{0: None, 1: None, 2: None, 3: None, ...}"),
        ([10**5000], "[<int of 16610 bits>]"),
        (File("/data/a.txt"), "File('/data/a.txt')"),
        (AppFuture(7), "<task 7>"),
        (max, "<builtin_function_or_method>"),
    ],
)
def test_builtin_values_are_shown_shortly(value: object, text: str) -> None:
    assert short_text(value) == text


@pytest.mark.parametrize("value", ["x" * 10**6, b"x" * 10**6, 10**1000], ids=["str", "bytes", "int"])
def test_a_long_value_is_shown_by_its_ends(value: object) -> None:
    assert "..." in short_text(value)
    assert len(short_text(value)) <= 60


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Rude, "<Rude>"),
        (lambda: RudeList([1]), "<RudeList>"),
        (lambda: RudeText("x"), "<RudeText>"),
        (RudeFuture, "<RudeFuture>"),
        (of_rude_metaclass, "<Made>"),
        (lambda: {Rude(): [Rude()]}, "{<Rude>: [<Rude>]}"),
        (lambda: {Rude()}, "{<Rude>}"),
    ],
)
def test_of_a_type_of_the_users_its_name_is_shown_and_nothing_of_it_is_called(make: Any, text: str) -> None:
    asked.clear()
    value = make()
    assert short_text(value) == text
    assert asked == []
