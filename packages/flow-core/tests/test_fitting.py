"""Calls whose arguments do not fit: refused where they are written, as Python refuses those of a function."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from kernel_apps import Load

import flow_core as flow
from flow_core.apps.fitting import Fitting


def none() -> None: ...
def two(x: object, y: object) -> None: ...
def defaults(x: object, y: object = 1, z: object = 2) -> None: ...
def only(x: object, /, y: object, *, k: object, d: object = 0) -> None: ...
def starred(x: object, *more: object) -> None: ...
def double(x: object, /, **named: object) -> None: ...
def all_kinds(a: object, /, b: object = 1, *c: object, d: object, **e: object) -> None: ...
def like_python(one: object) -> None: ...


FUNCTIONS: list[Callable[..., None]] = [none, two, defaults, only, starred, double, all_kinds, like_python]
NAMES = st.sampled_from(["x", "y", "z", "k", "d", "a", "b", "one", "other"])


@given(st.sampled_from(FUNCTIONS), st.lists(st.none(), max_size=4), st.dictionaries(NAMES, st.none(), max_size=3))
def test_what_fits_is_what_python_takes(
    function: Callable[..., None], args: list[None], kwargs: dict[str, None]
) -> None:
    fitting = Fitting(function, function.__name__)
    try:
        function(*args, **kwargs)
    except TypeError:
        assert isinstance(fitting.error(tuple(args), kwargs), TypeError)
    else:
        assert fitting.error(tuple(args), kwargs) is None
        assert kwargs or fitting.least <= len(args) <= fitting.most or function is only


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (two, (), {}, "two() missing 2 required arguments: 'x' and 'y'"),
        (two, (1,), {}, "two() missing 1 required argument: 'y'"),
        (two, (1, 2, 3), {}, "two() takes 2 positional arguments but 3 were given"),
        (none, (1,), {}, "none() takes 0 positional arguments but 1 was given"),
        (like_python, (1, 2), {}, "like_python() takes 1 positional argument but 2 were given"),
        (defaults, (1, 2, 3, 4), {}, "defaults() takes from 1 to 3 positional arguments but 4 were given"),
        (two, (1,), {"x": 2}, "two() got multiple values for argument 'x'"),
        (like_python, (), {"onne": 1}, "like_python() got an unexpected keyword argument 'onne': did you mean 'one'?"),
        (only, (1, 2), {}, "only() missing 1 required argument: 'k'"),
    ],
)
def test_the_message_says_what_is_wrong(
    function: Callable[..., None], args: tuple[object, ...], kwargs: dict[str, object], text: str
) -> None:
    assert str(Fitting(function, function.__name__).error(args, kwargs)) == text


@pytest.mark.parametrize("make", [flow.python_app, flow.bash_app, flow.join_app])
def test_a_call_that_does_not_fit_raises_at_the_line_of_the_call(load: Load, make: Any) -> None:
    kernel = load()

    def command(x: int, inputs: list[object] = []) -> str:
        return f"true {x}"

    app = make(command)
    for wrong in (lambda: app(), lambda: app(1, y=2), lambda: app.options(walltime=5)(y=3, inputs=[])):
        with pytest.raises(TypeError, match=r"^command\(\) (missing|got an unexpected)") as told:
            wrong()
        frames = traceback.extract_tb(told.value.__traceback__)
        assert [frame.filename == __file__ for frame in frames] == [True, True, False]
    assert kernel.summary().submitted == 0


def test_keywords_of_flow_are_no_arguments_of_the_function(load: Load) -> None:
    load()

    @flow.python_app
    def one(x: int) -> int:
        return x

    @flow.python_app
    def own(walltime: int, label: str) -> tuple[int, str]:
        return walltime, label

    assert one(1, walltime=5, label="here", inputs=[]).result(10) == 1
    assert own(5, label="mine").result(10) == (5, "mine")
    with pytest.raises(TypeError, match="missing 1 required argument: 'walltime'"):
        own(label="mine")


def test_of_wrapped_functions_and_callables_nothing_is_taken_for_granted(load: Load) -> None:
    load()

    def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: object) -> Any:
            return function("db", *args)

        return wrapper

    @flow.python_app
    @injecting
    def query(db: str, x: int) -> tuple[str, int]:
        return db, x

    class Callable_:  # noqa: N801
        def __call__(self, x: int) -> int:
            return x

    assert query(1).result(10) == ("db", 1)
    assert flow.python_app(Callable_())(2).result(10) == 2
    assert flow.python_app(functools.partial(pow, 2))(3).result(10) == 8
    assert flow.python_app(max)(1, 2).result(10) == 2


def test_methods_and_functions_given_to_the_kernel_are_checked_too(load: Load) -> None:
    kernel = load()

    class Model:
        @flow.python_app
        def run(self, x: int) -> int:
            return x

    assert Model().run(3).result(10) == 3
    with pytest.raises(TypeError, match=r"run\(\) missing 1 required argument: 'x'"):
        Model().run()
    with pytest.raises(TypeError, match=r"two\(\) missing 1 required argument: 'y'"):
        kernel.submit(two, 1)


def test_defaults_that_a_script_sets_later_count(load: Load) -> None:
    load()

    def late(x: int) -> int:
        return x

    app = flow.python_app(late)
    late.__defaults__ = (7,)
    assert app().result(10) == 7
