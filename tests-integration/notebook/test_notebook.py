"""Flow in a notebook: cells run by a real kernel of Jupyter, and what stands under them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
LOAD = """
import flow
from flow.progress import ProgressBar
kernel = flow.load(flow.Config(executors=[flow.ThreadPoolExecutor(max_threads=2)], sinks=[ProgressBar()]))
"""
APPS = """
@flow.python_app
def half(x):
    return x // 2 if x % 2 == 0 else 1 / 0

futures = [half(x) for x in range(4)]
for future in futures: future.exception()
"""


def outputs(tmp_path: Path, *cells: str) -> list[list[Any]]:
    """Run cells one after the other; return the outputs of each."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    return [cell.outputs for cell in book.cells]


def shown(of_cell: list[Any]) -> str:
    """Return what a cell shows, as HTML or text."""
    return "\n".join(str(one.get("data", {}).get("text/html") or one.get("text", "")) for one in of_cell)


def test_progress_is_a_table_under_the_cell_that_loaded_the_config(tmp_path: Path) -> None:
    loaded, *_ = outputs(tmp_path, LOAD, APPS, "flow.clear()")
    text = shown(loaded)
    assert "half" in text
    assert "4 / 4" in text
    assert "2 failed" in text
    assert re.search(r"2 of 4 tasks went well, 2 failed; see: flow status 000", text)


def test_kernel_summary_futures_and_config_are_shown_as_html(tmp_path: Path) -> None:
    *_, kernel, summary, well, wrong, config, _ = outputs(
        tmp_path, LOAD, APPS, "kernel", "kernel.summary()", "futures[0]", "futures[1]", "flow.Config()", "flow.clear()"
    )
    assert "goes on" in shown(kernel)
    assert "4 tasks" in shown(summary)
    assert "int" in shown(well)
    assert "ZeroDivisionError" in shown(wrong)
    assert "<pre>Config(" in shown(config)


def test_the_cell_that_loads_a_config_can_be_run_again(tmp_path: Path) -> None:
    load = "import flow\nkernel = flow.load(flow.Config(name='mine'))\nkernel.run_dir.name"
    first, again, replaced, _ = outputs(
        tmp_path, load, load, load.replace("'mine')", "'mine'), replace=True"), "flow.clear()"
    )
    assert shown(again).startswith("flow: this Config is loaded already")
    names = [one[-1]["data"]["text/plain"] for one in (first, again, replaced)]
    assert names == ["'000'", "'000'", "'001'"]
