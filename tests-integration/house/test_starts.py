"""Every process is started while no other thread forks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flow_core.folders
import flow_core.lazy
import flow_core.option_records
import flow_core.starting
import flow_providers.folders
import flow_providers.lazy
import flow_providers.option_records
import flow_providers.starting

SOURCES = Path(__file__).parents[2] / "packages"


@pytest.mark.parametrize(
    "twins",
    [
        (flow_core.starting, flow_providers.starting),
        (flow_core.folders, flow_providers.folders),
        (flow_core.lazy, flow_providers.lazy),
        (flow_core.option_records, flow_providers.option_records),
    ],
)
def test_the_two_distributions_that_know_nothing_of_each_other_have_the_same_module(twins):
    core, providers = (Path(module.__file__).read_bytes() for module in twins)
    assert core == providers


def _calls_popen(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.Popen", "Popen")


def _is_guarded(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any(ast.unparse(item.context_expr) == "starting()" for item in node.items)


def _popens(tree: ast.AST) -> tuple[set[int], set[int]]:
    """Return the lines of all starts of processes, and of those in a block of ``starting``."""
    every = {node.lineno for node in ast.walk(tree) if _calls_popen(node)}
    guarded = {
        node.lineno for block in ast.walk(tree) if _is_guarded(block) for node in ast.walk(block) if _calls_popen(node)
    }
    return every, guarded


def test_each_popen_of_ours_is_in_such_a_block():
    found, bare = 0, []
    for path in sorted(SOURCES.glob("*/src/**/*.py")):
        if "testing" in path.parts:
            continue
        every, guarded = _popens(ast.parse(path.read_text()))
        found += len(every)
        bare += [f"{path.relative_to(SOURCES)}:{line}" for line in sorted(every - guarded)]
    assert found >= 4
    assert bare == [], "put these into a 'with starting():' block"


# A program of one thread, which runs on nodes before Flow is there.
ALONE = "node_loader.py"


def test_nothing_of_ours_starts_processes_another_way():
    other = ("subprocess.run(", "subprocess.check_", "subprocess.call(", "posix_spawn(", "os.system(", "os.popen(")
    found = [
        f"{path.relative_to(SOURCES)}: {word}"
        for path in sorted(SOURCES.glob("*/src/**/*.py"))
        for word in other
        if "testing" not in path.parts and path.name != ALONE and word in path.read_text()
    ]
    assert found == []
