"""Plant mistakes in a copy of flow_core, and demand that ``mypy --strict`` names each: types must see into events.

    python .ci/planted_mistakes.py

- Each call that makes the record of an event has the values of two of its fields swapped that are of different types.
- Each event posted to the graph (``reactor.post(handler, given)``) is given a tuple of three in its place.
- Each effect of the graph (``effects.append((Effect.KIND, task, given))``) has its task and what is given swapped.

Exits with 1 and lists the lines where mypy saw nothing.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent / "packages" / "flow-core" / "src" / "flow_core"
_EVENTS = "interfaces/events.py"


def _fields_of_events() -> dict[str, dict[str, str]]:
    """Return the annotation of each field of each event class."""
    tree = ast.parse((_PACKAGE / _EVENTS).read_text())
    return {
        node.name: {
            each.target.id: ast.unparse(each.annotation)
            for each in node.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def _makers(tree: ast.Module) -> dict[str, str]:
    """Return the class of events of each ``name = record_maker(Class)`` of a module."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call = node.value
            if isinstance(call.func, ast.Name) and call.func.id == "record_maker":
                assert isinstance(node.targets[0], ast.Name)
                assert isinstance(call.args[0], ast.Name)
                found[node.targets[0].id] = call.args[0].id
    return found


def _swapped(call: ast.Call, types: dict[str, str]) -> tuple[ast.keyword, ast.keyword]:
    """Return two keywords of a call whose fields have different types."""
    first = call.keywords[0]
    for other in call.keywords[1:]:
        if types[str(other.arg)] != types[str(first.arg)]:
            return first, other
    raise SystemExit(f"line {call.lineno}: all fields are of one type; nothing can be planted")


def _plant(path: Path, fields: dict[str, dict[str, str]]) -> Iterator[tuple[int, str]]:
    """Plant mistakes in a file of the copy; yield the lines of each, as ``(line, what)``."""
    tree = ast.parse(path.read_text())
    makers = _makers(tree)
    changed = False
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in makers:
            one, other = _swapped(node, fields[makers[node.func.id]])
            one.value, other.value = other.value, one.value
            changed = True
        elif _is_post(node):
            node.args[1] = ast.Tuple([node.args[1], ast.Constant(0), ast.Constant("planted")], ast.Load())
            changed = True
        elif (effect := _effect_of(node)) is not None:
            effect.elts[1], effect.elts[2] = effect.elts[2], effect.elts[1]
            changed = True
    if not changed:
        return
    text = ast.unparse(ast.fix_missing_locations(tree))
    path.write_text(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in makers:
                yield node.lineno, f"fields of {makers[node.func.id]} are swapped"
            elif _is_post(node):
                yield node.lineno, f"a wrong tuple is posted to {ast.unparse(node.args[0])}"
            elif (effect := _effect_of(node)) is not None:
                yield node.lineno, f"task and given of {ast.unparse(effect.elts[0])} are swapped"


def _is_post(node: ast.Call) -> bool:
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "post"
        and len(node.args) == 2
        and ast.unparse(function.value).endswith("reactor")
    )


def _effect_of(node: ast.Call) -> ast.Tuple | None:
    """Return the effect that a call appends, if it appends one."""
    if ast.unparse(node.func).endswith("effects.append") and isinstance(node.args[0], ast.Tuple):
        return node.args[0]
    return None


def main() -> int:
    """Plant, ask mypy, compare."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "flow_core"
        shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        fields = _fields_of_events()
        planted = [
            (str(path.relative_to(folder)), line, what)
            for path in sorted(copy.rglob("*.py"))
            for line, what in _plant(path, fields)
        ]
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", f"{folder}/cache", "flow_core"]
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False).stdout
    seen = {tuple(line.split(":")[:2]) for line in told.splitlines() if ": error:" in line}
    unseen = [(file, line, what) for file, line, what in planted if (file, str(line)) not in seen]
    for file, line, what in unseen:
        print(f"mypy did not see: {file}:{line}: {what}")
    print(f"mypy named {len(planted) - len(unseen)} of {len(planted)} planted mistakes")
    return 1 if unseen or len(planted) < 20 else 0


if __name__ == "__main__":
    raise SystemExit(main())
