"""Functions by name."""

from __future__ import annotations

import functools
import json
import os.path
from collections import OrderedDict
from typing import Any

import pytest

from flow_core.apps.decorators import python_app
from flow_core.remote.refs import reference, resolve


def plain() -> int:
    return 1


def twice(func: Any) -> Any:
    @functools.wraps(func)
    def wrapper(*args: Any) -> Any:
        return 2 * func(*args)

    return wrapper


@python_app
def app() -> int:
    return 3


@python_app
@twice
def wrapped_app() -> int:
    return 5


replaced = plain


@pytest.mark.parametrize("func", [plain, json.dumps, os.path.join, OrderedDict.fromkeys, len, dict])
def test_what_has_a_name_is_found_by_it(func: Any) -> None:
    ref = reference(func)
    if ref is None:  # a bound class method is another object each time
        assert func == OrderedDict.fromkeys
    else:
        assert resolve(ref) is func
        assert ":" in ref


def test_the_function_of_an_app_is_found_below_the_app() -> None:
    ref = reference(app.__wrapped__)
    assert ref is not None
    assert resolve(ref) is app.__wrapped__


def test_the_very_layer_is_found_below_several() -> None:
    outer = wrapped_app.__wrapped__
    inner = outer.__wrapped__
    for func, result in ((outer, 10), (inner, 5)):
        ref = reference(func)
        assert ref is not None
        assert resolve(ref) is func
        assert resolve(ref)() == result


def test_lambdas_locals_and_bound_methods_have_no_name() -> None:
    def local() -> None: ...

    assert reference(local) is None
    assert reference(lambda: 1) is None
    assert reference("text".join) is None
    assert reference(functools.partial(plain)) is None


def test_functions_of_the_main_script_have_no_name_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "__module__", "__main__")
    assert reference(plain) is None


def test_a_name_that_is_bound_to_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plain
    monkeypatch.setitem(globals(), "plain", twice(lambda: 7))
    assert reference(before) is None


def test_a_module_that_is_not_there_is_named_with_advice() -> None:
    with pytest.raises(ImportError, match=r"'no_such_module'.*PYTHONPATH"):
        resolve("no_such_module:func")


def test_a_function_that_is_not_there_hints_at_another_version() -> None:
    with pytest.raises(AttributeError, match="another version"):
        resolve("json:no_such_function")
    with pytest.raises(AttributeError, match="not callable"):
        resolve("json:__name__")
