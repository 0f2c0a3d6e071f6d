"""What type checkers say of users' programs: mypy with and without our plug-in, and pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAMS = Path(__file__).parent / "programs"
RIGHT, WRONG = PROGRAMS / "right.py", PROGRAMS / "wrong.py"


OF_TUPLES = ("DerivedFuture[int | str]", "DerivedFuture[object]")


def expected(which: str) -> dict[int, str]:
    """Return what is to be revealed, by line: what one checker says where they differ stands after a bar."""
    found = {}
    for number, line in enumerate(RIGHT.read_text().splitlines(), 1):
        if line.lstrip().startswith("reveal_type"):
            first, bar, second = line.partition("  # ")[2].partition(" | ")
            found[number] = second if bar and which == "pyright" else first
    return found


def short(told: str) -> str:
    return re.sub(r"\b[\w.]+\.(\w)", r"\1", told)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def mypy(program: Path, cache: Path, *, plugin: bool) -> str:
    settings = cache / "mypy.ini"
    settings.write_text("[mypy]\nstrict = true\n" + ("plugins = flow_core.mypy_plugin\n" if plugin else ""))
    command = [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", cache / "cache", program]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_the_plugin_finds_each_mistake_in_calls_of_apps_and_no_other(cache: Path) -> None:
    out = mypy(WRONG, cache, plugin=True)
    found = {int(number) for number in re.findall(r"wrong\.py:(\d+): error:", out)}
    mistakes = {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if "  # wrong: " in line}
    assert len(mistakes) >= 20
    assert found == mistakes, out


@pytest.mark.parametrize("plugin", [True, False])
def test_right_programs_check_and_have_their_types_in_mypy(plugin: bool, cache: Path) -> None:
    out = mypy(RIGHT, cache, plugin=plugin)
    assert "error:" not in out
    revealed = {int(n): short(told) for n, told in re.findall(r'right\.py:(\d+): note: Revealed type is "(.*)"', out)}
    if plugin:
        assert revealed == expected("mypy")
    else:  # of tuples, it knows what all items have in common
        assert {line: told for line, told in revealed.items() if told != "DerivedFuture[object]"} == {
            line: told for line, told in expected("pyright").items() if told not in OF_TUPLES
        }


def test_right_programs_check_and_have_their_types_in_pyright(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pip install 'pyright[nodejs]'")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, RIGHT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    if not done.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright cannot be had: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    told = json.loads(done.stdout)["generalDiagnostics"]
    assert [one["message"] for one in told if one["severity"] == "error"] == []
    revealed = {
        one["range"]["start"]["line"] + 1: match[1]
        for one in told
        if (match := re.search(r'^Type of ".*" is "(.*)"$', one["message"], re.DOTALL))
    }
    assert revealed == expected("pyright")
