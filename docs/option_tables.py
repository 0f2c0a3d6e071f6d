"""Write the tables of options into the pages: they are made of the options' own documentation.

python docs/option_tables.py            # writes them
python docs/option_tables.py --check    # ends with status 1 where a page differs
"""

from __future__ import annotations

import re
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor as Threads
from pathlib import Path

import flow_providers
from flow_core.apps.app import AppBase
from flow_core.apps.definition import AppKind
from flow_core.config import Config
from flow_core.executors.futures import FuturesExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.task_fields import TASK_FIELDS
from flow_core.kernel.honouring import honours
from flow_core.option_records import options_of, table
from flow_executors.engines.dask import DaskExecutor
from flow_executors.engines.ipp_controller import Controller
from flow_executors.engines.ipyparallel import IPyParallelExecutor
from flow_executors.engines.ray import RayExecutor
from flow_executors.engines.work_queue import TaskVineExecutor, WorkQueueExecutor
from flow_executors.extreme import ExtremeScaleExecutor
from flow_executors.htex import HighThroughputExecutor
from flow_executors.llex import LowLatencyExecutor
from flow_monitor.hub import MonitoringHub

PROVIDERS = [
    kind
    for name in flow_providers.__all__
    if isinstance(kind := getattr(flow_providers, name), type) and any(options_of(kind))
]
PAGES: dict[str, list[type[object]]] = {
    "apps.md": [AppBase],
    "configuration.md": [Config],
    "monitoring.md": [MonitoringHub],
    "engines.md": [DaskExecutor, RayExecutor, IPyParallelExecutor, Controller, WorkQueueExecutor, TaskVineExecutor],
    "extreme-scale.md": [ExtremeScaleExecutor],
    "executors.md": [ThreadPoolExecutor, HighThroughputExecutor],
    "provider-options.md": PROVIDERS,
}
HONOURS = "executors.md"


def page_with_table(text: str, kind: type[object]) -> str:
    """Return the text of a page with the table of a class between its marks."""
    name = kind.__name__
    marks = re.compile(rf"(<!-- options of {name} -->\n).*?(<!-- end of options -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"the page has no marks for the options of {name}")
    return marks.sub(lambda found: f"{found[1]}\n{table(kind)}\n{found[2]}", text)


def honours_table() -> str:
    """Return which executors honour which field of tasks, as a table in Markdown."""
    with ProcessPoolExecutor(1) as processes, Threads(1) as threads:
        columns: dict[str, Executor] = {
            "`ThreadPoolExecutor`": ThreadPoolExecutor(),
            "`HighThroughputExecutor`": HighThroughputExecutor(),
            "`LowLatencyExecutor`": LowLatencyExecutor(),
            "`ExtremeScaleExecutor`": ExtremeScaleExecutor(ranks_per_node=2),
            "`DaskExecutor`": DaskExecutor(),
            "`IPyParallelExecutor`": IPyParallelExecutor(),
            "`WorkQueueExecutor`, `TaskVineExecutor`": WorkQueueExecutor(),
            "`RayExecutor`": RayExecutor(),
            "a pool of threads": FuturesExecutor("threads", threads),
            "a pool of processes": FuturesExecutor("processes", processes),
            "another pool": FuturesExecutor("pool", lambda: processes),
        }
        lines = [f"| a task's | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
        for name in TASK_FIELDS:
            cells = (_cell(executor, name) for executor in columns.values())
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(executor: Executor, name: str) -> str:
    if not honours(executor, name, AppKind.BASH):
        return "refused"
    return "yes" if honours(executor, name, AppKind.PYTHON) else "bash apps"


def page_with_honours(text: str) -> str:
    """Return the text of a page with the table of what executors honour between its marks."""
    first, last = "<!-- what executors honour -->\n", "<!-- end of what executors honour -->"
    head, _, rest = text.partition(first)
    _, found, tail = rest.partition(last)
    if not found:
        raise ValueError("the page has no marks for what executors honour")
    return f"{head}{first}\n{honours_table()}\n{last}{tail}"


def main() -> None:
    """Write the tables, or say which pages differ."""
    differ = []
    for page, kinds in PAGES.items():
        path = Path(__file__).with_name(page)
        text = made = path.read_text()
        for kind in kinds:
            made = page_with_table(made, kind)
        if page == HONOURS:
            made = page_with_honours(made)
        if made != text:
            differ.append(page)
            if "--check" not in sys.argv:
                path.write_text(made)
    if differ and "--check" in sys.argv:
        sys.exit(f"the tables of options differ in {', '.join(differ)}: python docs/option_tables.py writes them")


if __name__ == "__main__":
    main()
