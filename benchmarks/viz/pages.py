"""Time every page of flow-visualize, and what its plots ask for, on a database; the bar is 1 s, the first time too.

python benchmarks/viz/pages.py OUT.db
"""

from __future__ import annotations

import argparse
import time

from flow_monitor.queries import workflows
from flow_monitor.queries.database import open_database
from flow_viz.app import create_app

PAGES = (
    "/workflow/{run}/", "/workflow/{run}/running.json", "/workflow/{run}/graph", "/workflow/{run}/graph.json",
    "/workflow/{run}/graph.json?color=state", "/workflow/{run}/graph.json?level=stages",
    "/workflow/{run}/graph.json?level=tasks", "/workflow/{run}/timeline", "/workflow/{run}/timeline.json",
    "/workflow/{run}/tasks", "/workflow/{run}/tasks?state=failed", "/workflow/{run}/tasks?app=simulate&state=failed",
    "/workflow/{run}/tasks?sort=run_time&dir=desc", "/workflow/{run}/tasks?sort=tries&dir=desc",
    "/workflow/{run}/tasks?q=converge", "/workflow/{run}/tasks?q=123456", "/workflow/{run}/tasks?page=9000",
    "/workflow/{run}/task/{task}", "/workflow/{run}/task/0", "/workflow/{run}/task/{task}/resources.json",
    "/workflow/{run}/resources", "/workflow/{run}/resources/cpu.json",
    "/workflow/{run}/resources/memory.json?by=node", "/workflow/{run}/resources/cpu.json?by=block",
    "/workflow/{run}/resources/memory.json?by=app", "/workflow/{run}/resources/app_cpu.json",
    "/workflow/{run}/resources/node_cpu.json", "/workflow/{run}/blocks", "/api/workflows",
    "/api/workflows/{run}/tasks?limit=1000", "/api/workflows/{run}/graph", "/api/workflows/{run}/timeline",
    "/api/workflows/{run}/nodes", "/api/workflows/{run}/resources",
)  # fmt: skip


def main() -> None:
    """Open each page twice; print how long each took, slowest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path")
    options = parser.parse_args()
    with open_database(options.path) as database, database.connect() as connection:
        newest = workflows.page(connection).items[0]
    found = []
    for page in ("/", *PAGES):
        address = page.format(run=newest.run_id, task=newest.submitted // 2)
        with open_database(options.path) as database:
            client = create_app(database).test_client()
            times = []
            for _ in range(2):
                began = time.perf_counter()
                answer = client.get(address)
                times.append(time.perf_counter() - began)
        found.append((times[0], times[1], answer.status_code, len(answer.data), address))
    print(f"{newest.submitted} tasks\n{'first s':>8s} {'again s':>8s} status     bytes  page")
    for first, again, status, size, address in sorted(found, reverse=True):
        print(f"{first:8.3f} {again:8.3f} {status:6d} {size:9d}  {address}")


if __name__ == "__main__":
    main()
