"""The page of the specification: each row has a verdict, each verdict its test or its reason, and each test exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "specification.md"
VERDICTS = ("works", "stand-in", "partly", "instead", "not")
NAMED = re.compile(r"`([\w/.-]+\.py)::([\w:]+)`")
SEPARATOR = re.compile(r"(?<!\\)\|")  # a bar in a cell is written \|


def rows() -> list[tuple[str, str, str, str]]:
    """Return section, item, verdict and evidence of every row."""
    found = []
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif section and line.startswith("| ") and not line.startswith(("| what is named |", "| ---")):
            cells = [cell.strip() for cell in SEPARATOR.split(line)[1:-1]]
            assert len(cells) == 3, line
            found.append((section, *cells))
    return found


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of tests in a file, and those of classes and of the tests in them."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef))
    return frozenset(names)


def mistakes(verdict: str, evidence: str) -> list[str]:
    """Return what is wrong with a row."""
    if verdict not in VERDICTS:
        return [f"{verdict!r} is none of {', '.join(VERDICTS)}"]
    tests = NAMED.findall(evidence)
    reason = NAMED.sub("", evidence).strip(" ;")
    found = [
        f"there is no test {path}::{name}"
        for path, name in tests
        if not (ROOT / path).is_file() or name not in names_in(ROOT / path) or "est" not in name.rpartition(":")[2]
    ]
    if verdict in ("works", "stand-in", "partly") and not tests:
        found.append("no test shows it")
    if verdict != "works" and len(reason) < 12:
        found.append("no reason is given")
    return found


def test_every_row_is_in_order() -> None:
    wrong = [f"{section}: {item}: {what}" for section, item, verdict, ev in rows() for what in [*mistakes(verdict, ev)]]
    assert not wrong, "\n".join(wrong)


def test_no_row_was_lost() -> None:
    # What the documents name does not become less: a row is changed, never taken away.
    assert len(rows()) >= 632
    assert all(item for _section, item, _verdict, _evidence in rows())
    assert not [item for (_, item), count in Counter(row[:2] for row in rows()).items() if count > 1]


@pytest.mark.parametrize(
    ("verdict", "evidence", "what"),
    [
        ("perhaps", "", "is none of"),
        ("works", "as everybody knows", "no test shows it"),
        ("works", "`tests-integration/house/test_specification.py::test_that_nobody_wrote`", "there is no test"),
        ("works", "`tests-integration/house/test_nowhere.py::test_every_row_is_in_order`", "there is no test"),
        ("works", "`tests-integration/house/test_specification.py::rows`", "there is no test"),
        ("instead", "`tests-integration/house/test_specification.py::test_every_row_is_in_order`", "no reason"),
        ("not", "", "no reason"),
    ],
)
def test_a_mistake_in_a_row_is_found(verdict: str, evidence: str, what: str) -> None:
    assert any(what in one for one in mistakes(verdict, evidence))
