"""Time every page of flow-visualize, and what its plots ask for, on a database; the bar is 1 s, the first time too.

    python benchmarks/viz/pages.py OUT.db [--cold]
    python benchmarks/viz/pages.py postgresql://user@host/name [--cold --data DIR]

Lists are asked for in every order and with every kind of filter that they offer, at their begin, middle and end. With
``--cold`` nothing of the database is in the cache of files when a page is first asked for; of a server on this machine,
``--data`` is where its files are (what it keeps in its own memory stays there).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from flow_monitor.queries import workflows
from flow_monitor.queries.database import open_database
from flow_monitor.queries.tasks import TaskOrder
from flow_monitor.queries.workflows import WorkflowOrder
from flow_viz.app import create_app

PAGES = (
    "/workflow/{run}/", "/workflow/{run}/running.json", "/workflow/{run}/graph", "/workflow/{run}/graph.json",
    "/workflow/{run}/graph.json?color=state", "/workflow/{run}/graph.json?level=stages",
    "/workflow/{run}/graph.json?level=tasks", "/workflow/{run}/timeline", "/workflow/{run}/timeline.json",
    "/workflow/{run}/task/{task}", "/workflow/{run}/task/0", "/workflow/{run}/task/{task}/resources.json",
    "/workflow/{run}/task/{task}/flow.json",
    "/workflow/{run}/resources", "/workflow/{run}/resources/cpu.json",
    "/workflow/{run}/resources/memory.json?by=node", "/workflow/{run}/resources/cpu.json?by=block",
    "/workflow/{run}/resources/memory.json?by=app", "/workflow/{run}/resources/app_cpu.json",
    "/workflow/{run}/resources/node_cpu.json", "/workflow/{run}/blocks", "/api/workflows",
    "/api/workflows/{run}/tasks?limit=1000", "/api/workflows/{run}/graph", "/api/workflows/{run}/timeline",
    "/api/workflows/{run}/nodes", "/api/workflows/{run}/resources",
)  # fmt: skip
FILTERS = (
    "", "state=failed", "state=exec_done", "state=failed&state=dep_fail&state=memo_done", "app=simulate", "app=merge",
    "app=simulate&state=exec_done", "app=simulate&state=failed", "q=converge", "q=part", "q=nowhere", "q=123456",
    "q=part&app=analyse&state=exec_done",
)  # fmt: skip


def addresses(tasks: int) -> Iterator[str]:
    """Yield the addresses of all pages."""
    yield from ("/", *PAGES)
    ways = ("asc", "desc")
    for order, way in product(TaskOrder, ways):
        for which in FILTERS:
            yield f"/workflow/{{run}}/tasks?sort={order.value}&dir={way}&{which}"
        for offset in (tasks // 2, tasks - 150):
            yield f"/workflow/{{run}}/tasks?sort={order.value}&dir={way}&offset={offset}"
        yield f"/api/workflows/{{run}}/tasks?sort={order.value}&dir={way}&limit=1000&app=simulate&offset={tasks // 3}"
    for order_of_runs, way, search in product(WorkflowOrder, ways, ("", "long")):
        yield f"/?sort={order_of_runs.value}&dir={way}&q={search}"


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file in memory."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files(database: str, data: Path | None) -> list[Path]:
    """Return the files that a database is in."""
    if data is not None:
        return [path for path in data.rglob("*") if path.is_file()]
    return [Path(database)]


def main() -> None:
    """Open each page twice; print how long each took, slowest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("database", help="a SQLite file, or the URI of a database")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--data", type=Path, help="the directory of a server's files")
    parser.add_argument("--only", default="", help="what the addresses contain")
    options = parser.parse_args()
    if options.cold and "://" in options.database and options.data is None:
        parser.error("--cold needs to know where the server's files are: --data DIR")
    with open_database(options.database) as database, database.connect() as connection:
        newest = workflows.page(connection).items[0]
    found = []
    for page in addresses(newest.submitted):
        address = page.format(run=newest.run_id, task=newest.submitted // 2)
        if options.only not in address:
            continue
        if options.cold:
            for path in files(options.database, options.data):
                forget(path)
        with open_database(options.database) as database:
            client = create_app(database).test_client()
            times = []
            for _ in range(2):
                began = time.perf_counter()
                answer = client.get(address)
                times.append(time.perf_counter() - began)
        found.append((times[0], times[1], answer.status_code, len(answer.data), address))
    print(f"{newest.submitted} tasks, {len(found)} pages, slower than 1 s: {sum(one[0] > 1 for one in found)}")
    print(f"{'first s':>8s} {'again s':>8s} status     bytes  page")
    for first, again, status, size, address in sorted(found, reverse=True):
        print(f"{first:8.3f} {again:8.3f} {status:6d} {size:9d}  {address}")


if __name__ == "__main__":
    main()
