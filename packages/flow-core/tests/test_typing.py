"""What a type checker sees of apps."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

SAMPLE = """
from flow_core.apps.decorators import bash_app, join_app, python_app
from flow_core.futures.app_future import AppFuture

@python_app
def double(x: int, note: str = "") -> int:
    return 2 * x

@python_app(cache=True, executors=["threads"])
def words(text: str) -> list[str]:
    return text.split()

@bash_app
def shout(text: str, inputs: list[str] = [], stdout: str | None = None) -> str:
    return f"echo {text}"

@join_app
def several(n: int) -> list[AppFuture[int]]:
    return [double(i) for i in range(n)]

@join_app
def one(n: int) -> AppFuture[int]:
    return double(n)

@join_app(cache=True)
def named(n: int) -> dict[str, AppFuture[int]]:
    return {"n": double(n)}

class Model:
    @python_app
    def fit(self, x: int) -> str:
        return ""

reveal_type(double)                                     # PythonApp[[x: int, note: str =], int]
reveal_type(double(1))                                  # AppFuture[int]
reveal_type(double(double(1)))                          # AppFuture[int]
reveal_type(double(1, walltime=3))                      # AppFuture[int]
reveal_type(double(x=double(1), note="n", label="l"))   # AppFuture[int]
reveal_type(double(1).result())                         # int
reveal_type(words("a b").result())                      # list[str]
reveal_type(shout("a", stdout="out").result())          # int
reveal_type(several(2).result())                        # list[int]
reveal_type(one(2).result())                            # int
reveal_type(named(2).result())                          # dict[str, int]
reveal_type(double.options(walltime=3, label="l")(1))   # AppFuture[int]
reveal_type(Model().fit(1))                             # AppFuture[str]
"""


def test_calls_are_typed_also_with_futures_and_special_keywords(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(textwrap.dedent(SAMPLE))
    out, err, status = api.run(["--strict", "--cache-dir", str(tmp_path / "cache"), str(sample)])
    assert status == 0, out + err
    revealed = [re.sub(r"\b[\w.]+\.(\w)", r"\1", text) for text in re.findall(r'Revealed type is "(.*)"', out)]
    expected = [line.partition("# ")[2] for line in SAMPLE.splitlines() if line.startswith("reveal_type")]
    assert revealed == expected
