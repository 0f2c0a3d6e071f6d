"""What in a value cannot be pickled is said by the path to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from flow_core.errors import SerializationError
from flow_core.remote import culprits
from flow_core.remote.culprits import explained
from flow_core.remote.functions import pack_function
from flow_core.remote.parcel import pack_task

LOCK = threading.Lock()
WHY = "(_thread.lock): TypeError: cannot pickle '_thread.lock' object"
CFG = {"plain": 1, "lock": LOCK}


def helper() -> object:
    return CFG


class Holder:
    def __init__(self, held: object) -> None:
        self.held = held

    def get(self) -> object:
        return self.held


class Refuses:
    def __reduce__(self) -> str:
        raise SystemExit("no")


def why(value: object) -> str:
    return explained(value, TypeError("the whole"))


def by_value(source: str, **names: object) -> Callable[..., object]:
    names["__name__"] = "__main__"
    exec(source, names)
    return names["f"]  # type: ignore[return-value]  # the source defines it


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, {"k": LOCK}], "element [1]['k']"),
        ({"x": Holder({"y": (1, LOCK)})}, "element ['x'].held['y'][1]"),
        (Holder(LOCK), "attribute .held"),
        (partial(len, 1, key=LOCK), "element ['key']"),
        (Holder(LOCK).get, "the object of method Holder.get(), attribute .held"),
        (by_value("def f(a, b=1, *, c=LOCK): pass", LOCK=LOCK), "default of 'c' of f()"),
        (by_value("def g(): return C\ndef f(): return g()", C=CFG), "global 'C' of g(), element ['lock']"),
        (by_value("class K:\n    one = LOCK\ndef f(): return K", LOCK=LOCK), "attribute 'one' of class K"),
        (by_value("def o(x):\n    return lambda: x\nf = o([LOCK])", LOCK=LOCK), "element [0]"),
    ],
)
def test_what_cannot_be_pickled_is_named_by_its_path(value: object, path: str) -> None:
    assert why(value).endswith(f"{path} {WHY}")


def test_of_functions_that_name_each_other_the_one_that_names_the_culprit_is_said() -> None:
    function = by_value("def g(): return f() or LOCK\ndef f(): return g()", LOCK=LOCK)
    assert why(function) == f"global 'LOCK' of g() {WHY}"


def test_what_is_in_itself_has_a_path_too() -> None:
    one: list[object] = [1]
    one += [one, LOCK]
    assert why(one) == f"element [2] {WHY}"


def test_an_object_that_refuses_is_named_with_its_own_error() -> None:
    assert why([Refuses()]) == f"element [0] ({__name__}.Refuses): SystemExit: no"


def test_what_is_itself_the_culprit_has_only_its_error() -> None:
    assert why(LOCK) == "TypeError: the whole"


def test_a_search_that_takes_too_long_gives_the_error_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(culprits, "_SEARCH_S", -1.0)
    assert why([LOCK]) == "TypeError: the whole"


def test_a_function_that_cannot_travel_is_an_error_with_the_path_and_the_remedy() -> None:
    with pytest.raises(SerializationError, match=r"global 'C' of f\(\), element \['lock'\].*Make such a thing in the"):
        pack_function(by_value("def f(): return C", C=CFG))


def test_an_argument_that_cannot_travel_is_an_error_with_the_path_and_one_cause() -> None:
    with pytest.raises(SerializationError, match=r"argument 2 \(list\) of len .*element \[0\]\['lock'\]") as caught:
        pack_task(len, (1, [CFG]))
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.__cause__.__context__ is None
