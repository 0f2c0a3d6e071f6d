"""Every option of every class that users make is read by something, and some test gives it another value.

Options of providers, of channels, of launchers and of executors are beyond that compared one by one, by what comes of
them: ``test_option_effects.py`` of both distributions, ``test_cloud_option_effects.py`` and
``test_channel_option_effects.py``. Options that change nothing beside others are in
``test_without_effect.py`` of each distribution, and in ``test_block_request.py``.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import flow
import flow.channels
import flow.executors
import flow.launchers
import flow.providers
import flow_core.apps.app
import flow_core.executors.futures
import flow_core.memo.memoizer
import flow_monitor
import flow_staging
import flow_viz.app

ROOT = Path(__file__).parents[2]

OTHERS: list[Any] = [
    flow_core.executors.futures.FuturesExecutor,
    flow_core.memo.memoizer.BasicMemoizer,
    flow_viz.app.create_app,
]
"""What users make that is in no package's list of names."""

NOT_MADE_BY_USERS = (
    "flow_core.futures.",
    "flow_core.observe.",
    "flow_core.kernel.",
    "flow_providers.interfaces.",
    "flow_monitor.log.",
)
"""Modules whose classes users are given, or whose functions take no options of a run."""

_OF_PROVIDERS = ("adhoc", "channels", "cloud", "cluster", "kubernetes", "launchers", "local")
COMPARED = (
    *(f"flow_providers.{part}." for part in _OF_PROVIDERS),
    *("flow_executors.htex", "flow_executors.llex", "flow_executors.extreme"),
)
"""Modules whose options are compared one by one elsewhere."""

BY_POSITION: dict[str, str] = {
    "mpi_app(function=)": "packages/flow-core/tests/test_ranks.py::test_an_app_of_ranks_that_states_none_has_one",
    "App(apptype=)": (
        "packages/flow-core/tests/test_apps.py::test_the_old_decorator_makes_apps_by_the_name_of_their_kind"
    ),
    "on_block_end(callback=)": (
        "tests-integration/htex/test_block_end.py::"
        "test_a_task_that_is_told_saves_its_work_and_is_run_again_without_any_budget"
    ),
    "HighThroughputExecutor(mpi_launcher=)": "tests-integration/mpi/test_four_nodes.py::"
    "test_srun_starts_the_ranks_where_the_site_wants_it",
    "Database(url=)": "packages/flow-monitor/tests/test_queries.py::test_a_run_has_its_counts_and_times",
}
"""A test that gives an option, where a search for its name does not find one."""

WITHOUT_EFFECT = {
    *(
        f"HighThroughputExecutor({name}=)"
        for name in ("interchange_port_range", "poll_period", "suppress_failure", "encrypted", "loopback_address")
    ),
    "ExtremeScaleExecutor(interchange_port_range=)",
    *(f"{name}(move_files=)" for name in ("AdHocProvider", "LSFProvider", "LocalProvider", "SlurmProvider")),
    "MonitoringHub(hub_address=)",
    "MonitoringHub(hub_port=)",
}
"""Options taken for the sake of scripts that give them: nothing reads them, and giving them is a warning, see above."""

OTHER_NAMES = {
    f"{kind}(max_workers_per_node=)"
    for kind in ("HighThroughputExecutor", "LowLatencyExecutor", "ExtremeScaleExecutor")
}
"""Other names of options: what is given by them is read by the first name."""


PASSED_ON = dict.fromkeys((flow.python_app, flow.bash_app, flow.join_app, flow.mpi_app), flow_core.apps.app.AppBase)
"""Decorators that take the options of a constructor, and hand them on to it."""


def public(package: Any) -> Iterator[Any]:
    for name in sorted({*dir(package), *getattr(package, "__all__", ())}):
        if name.startswith("_"):
            continue
        found = getattr(package, name, None)
        kind = inspect.isclass(found) and not issubclass(found, BaseException)
        if (kind or inspect.isfunction(found)) and found.__module__.startswith("flow"):
            yield found


def made_by_users() -> list[Any]:
    packages = (flow, flow.executors, flow.providers, flow.channels, flow.launchers, flow_staging, flow_monitor)
    found = {made: None for package in packages for made in public(package)}
    return [
        made
        for made in [*found, *OTHERS]
        if not made.__module__.startswith(NOT_MADE_BY_USERS) and not getattr(made, "_is_protocol", False)
    ]


def options_of(made: Any) -> list[str]:
    try:
        parameters = inspect.signature(made).parameters.values()
    except ValueError:
        return []
    return [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


OPTIONS = [
    pytest.param(made, option, id=f"{made.__name__} {option}")
    for made in made_by_users()
    for option in options_of(made)
]


@cache
def sources() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in ROOT.glob("packages/*/src/**/*.py")}


@cache
def attributes_read() -> Counter[str]:
    """Return how often an attribute of each name is read anywhere, and which names templates have."""
    found: Counter[str] = Counter()
    for tree in sources().values():
        found.update(
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        )
    for path in ROOT.glob("packages/*/src/**/*.j2"):
        found.update(re.findall(r"\w+", path.read_text()))
    return found


def constructor_of(made: Any) -> ast.FunctionDef | None:
    """Return the tree of the function that takes the options; None where a dataclass has made it."""
    made = PASSED_ON.get(made, made)
    called = inspect.unwrap(made.__init__ if inspect.isclass(made) else made)
    code = getattr(called, "__code__", None)
    # By the name of its module: what is installed is a copy.
    inside = f"src/{called.__module__.replace('.', '/')}"
    path = next((one for one in sources() if str(one).endswith((f"/{inside}.py", f"/{inside}/__init__.py"))), None)
    if code is None or path is None:
        return None
    for node in ast.walk(sources()[path]):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if code.co_firstlineno in (first, node.lineno):
                return node
    return None


def is_used_within(function: ast.FunctionDef, option: str) -> bool:
    """Return whether a parameter goes anywhere but into an attribute of its own name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == option:
            target = node.targets[0]
            if isinstance(target, ast.Attribute) and target.attr == option:
                node.value = ast.Constant(None)  # kept, and not used here
    return any(isinstance(node, ast.Name) and node.id == option for node in ast.walk(function))


@pytest.mark.parametrize(("made", "option"), OPTIONS)
def test_an_option_is_read_by_something(made: Any, option: str) -> None:
    function = constructor_of(made)
    read = bool(attributes_read()[option]) or (function is not None and is_used_within(function, option))
    name = f"{made.__name__}({option}=)"
    # Both ways, so that what comes to have an effect is taken out of the list.
    assert read != (name in WITHOUT_EFFECT | OTHER_NAMES)


@cache
def given_in_tests() -> list[tuple[str, frozenset[str]]]:
    """Return the text of each file of tests, and the names that are keywords of calls or texts in it."""
    tests = [*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("tests-integration/**/*.py")]
    found = []
    for path in tests:
        if path == Path(__file__):
            continue
        text = path.read_text()
        nodes = list(ast.walk(ast.parse(text)))
        keywords = {one.arg for one in nodes if isinstance(one, ast.keyword) and one.arg}
        texts = {one.value for one in nodes if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        # Scripts that tests run are texts.
        in_scripts = {name for one in texts if "\n" in one for name in re.findall(r"\b(\w+)=", one)}
        found.append((text, frozenset(keywords | texts | in_scripts)))
    return found


def is_given(name: str, option: str) -> bool:
    return any(name in text and option in given for text, given in given_in_tests())


@pytest.mark.parametrize(("made", "option"), OPTIONS)
def test_some_test_gives_an_option(made: Any, option: str) -> None:
    if made.__module__.startswith(COMPARED):
        assert is_given("OTHER", option)
        return
    place = BY_POSITION.get(f"{made.__name__}({option}=)")
    if place is not None:
        path, _, test = place.partition("::")
        assert f"def {test}" in (ROOT / path).read_text()
        return
    if inspect.signature(made).parameters[option].default is inspect.Parameter.empty:
        # No call is without it.
        assert any(re.search(rf"\b{made.__name__}\(", text) for text, _given in given_in_tests())
        return
    assert is_given(made.__name__, option), f"no test gives {made.__name__}({option}=) another value"


def test_what_is_listed_here_is_still_an_option() -> None:
    known = {f"{made.__name__}({option}=)" for made in made_by_users() for option in options_of(made)}
    assert known >= BY_POSITION.keys() | WITHOUT_EFFECT | OTHER_NAMES


def arguments_of(tree: ast.Module) -> Iterator[str]:
    """Yield the names under which a module's arguments of command lines are read."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr != "add_argument":
            continue
        kept = {one.arg: one.value for one in node.keywords}
        if "dest" in kept and isinstance(kept["dest"], ast.Constant):
            yield str(kept["dest"].value)
            continue
        action = kept.get("action")
        if isinstance(action, ast.Constant) and action.value in ("version", "help"):
            continue
        words = [one.value for one in node.args if isinstance(one, ast.Constant)]
        long = [word for word in words if isinstance(word, str) and not word.startswith("-")]
        long += [word for word in words if isinstance(word, str) and word.startswith("--")]
        if long:
            yield long[0].lstrip("-").replace("-", "_")


def test_every_argument_of_a_command_is_read() -> None:
    unread = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in sources().items()
        for name in arguments_of(tree)
        if not attributes_read()[name]
    }
    assert unread == set()
