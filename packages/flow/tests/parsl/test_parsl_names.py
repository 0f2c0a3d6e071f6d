from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from flow.compat import parsl
from flow.compat.parsl import not_offered

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("names.json").read_text())
MOST_MISSING = 0.05


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    parsl.install(quiet=True)
    yield
    parsl.uninstall()


def recorded() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for module, names in RECORDED["names"].items():
        for name, shape in names.items():
            yield module, name, shape


def found(module: str, name: str) -> object:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return None


def is_inner(module: str, name: str) -> bool:
    inside = any(f"{module}.".startswith(f"{inner}.") for inner in not_offered.INNER_MODULES)
    return inside or name in not_offered.INNER_NAMES


def test_every_public_name_of_parsl_resolves_or_has_a_reason() -> None:
    unknown = [
        f"{module}.{name}"
        for module, name, _ in recorded()
        if found(module, name) is None and not not_offered.reason(f"{module}.{name}")
    ]
    assert unknown == []


def test_at_most_a_twentieth_of_the_interface_is_missing() -> None:
    interface = [(module, name) for module, name, _ in recorded() if not is_inner(module, name)]
    missing = [f"{module}.{name}" for module, name in interface if found(module, name) is None]
    assert len(interface) > 150
    assert len(missing) <= MOST_MISSING * len(interface), missing


def test_no_reason_is_given_for_a_name_that_resolves() -> None:
    assert [name for name in not_offered.NAMES if found(*name.rsplit(".", 1)) is not None] == []


def test_every_module_that_parsl_can_import_is_there_or_has_a_reason() -> None:
    unknown = []
    for module in RECORDED["names"]:
        try:
            import_module(module)
        except ImportError:
            if not not_offered.reason(module):
                unknown.append(module)
    assert unknown == []


@pytest.mark.parametrize("module", ["parsl.providers", "parsl.launchers", "parsl.executors", "parsl.config"])
def test_constructors_take_all_parameters_of_parsl(module: str) -> None:
    missing = []
    for home, name, shape in recorded():
        if shape["kind"] != "class" or not shape["parameters"] or not home.startswith(module):
            continue
        made = found(home, name)
        order = getattr(made, "parsl_order", ())
        if order:  # of Azure's all are refused by name
            missing += [f"{name}({one})" for one in shape["parameters"] if one not in order]
    assert missing == []


def test_every_name_can_be_imported_below_the_compat_package_too() -> None:
    for module, names in parsl.finder.NAMES.items():
        if module.startswith("parsl."):
            own = import_module(module.replace("parsl", parsl.finder.OWN, 1))
            for name in names:
                assert getattr(own, name) is getattr(import_module(module), name)


def test_a_star_import_binds_the_decorators() -> None:
    bound: dict[str, Any] = {}
    exec("from parsl import *", bound)
    assert {"python_app", "bash_app", "join_app", "Config", "load", "File"} <= set(bound)


def test_a_name_that_is_not_offered_says_why() -> None:
    import parsl.data_provider.globus as globus

    with pytest.raises(AttributeError, match="flow-staging signs in by itself"):
        globus.get_globus  # noqa: B018


def test_a_module_that_is_not_offered_says_why() -> None:
    with pytest.raises(ModuleNotFoundError, match="a program that Parsl runs"):
        import_module("parsl.executors.high_throughput.interchange")


def test_apps_show_the_parameters_of_parsl() -> None:
    for name in ("python_app", "bash_app", "join_app"):
        wanted = RECORDED["names"]["parsl.app.app"][name]["parameters"]
        assert list(inspect.signature(getattr(parsl, name)).parameters)[: len(wanted)] == wanted
