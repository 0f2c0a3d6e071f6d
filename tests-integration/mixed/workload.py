"""A small run that makes events of every kind, and what its database holds of it; printed as JSON.

    python workload.py DIRECTORY

Uses what scripts use of all distributions, by their public names: it is run by versions of them that differ.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import flow
from flow import Config, File, bash_app, join_app, python_app
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider

CALLS = 20
TABLES = (
    "workflow", "task", "try", "node", "block", "file", "input_file", "output_file", "app", "app_edge", "app_join",
    "joined",
)  # fmt: skip
EXPECTED = {
    "results": {"sum": 2470, "again": 2470, "joined": [0, 1, 4], "busy": 1.0, "failed": "as it should", "lines": "2"},
    "rows": {
        "workflow": 1, "task": 29, "try": 29, "node": 1, "block": 1, "file": 2, "input_file": 1, "output_file": 1,
        "app": 6, "app_edge": 1, "app_join": 1, "joined": 1,
        "states": {"exec_done": 27, "failed": 1, "memo_done": 1},
        "tries": {"flow-join": 1, "threads": 2, "workers": 26},
        "verdicts": {"APP_ERROR": 2, "OK": 27},
        "tasks with changes": 29, "blocks with changes": 1, "sampled": 1, "ended": "ended",
    },
}  # fmt: skip
"""What the run gives, whichever versions make it."""


@python_app(executors=["workers"])
def square(number: int) -> int:
    return number * number


@python_app(executors=["workers"])
def busy(seconds: float) -> float:
    """Use a core for longer than the interval of samples."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


@python_app(executors=["threads"], cache=True)
def add(inputs: tuple[int, ...] = ()) -> int:
    return sum(inputs)


@python_app(executors=["workers"])
def fail() -> None:
    raise ValueError("as it should")


@join_app
def squares(count: int) -> list[object]:
    return [square(number) for number in range(count)]


@bash_app(executors=["threads"])
def count_lines(inputs: tuple[File, ...] = (), outputs: tuple[str, ...] = ()) -> str:
    return f"wc -l < {inputs[0]} > {outputs[0]}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def run(directory: Path) -> dict[str, object]:
    """Run everything once; return the results."""
    (directory / "served").mkdir()
    (directory / "served" / "data.txt").write_text("one\ntwo\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = Config(
        executors=[
            HighThroughputExecutor(label="workers", max_workers=2, provider=LocalProvider(max_blocks=1)),
            ThreadPoolExecutor(label="threads", max_threads=2, working_dir=str(directory / "work")),
        ],
        monitoring=MonitoringHub(resource_monitoring_interval=0.2),
        run_dir=str(directory / "runinfo"),
        retries=1,
    )
    try:
        with flow.load(config):
            numbers = [square(number) for number in range(CALLS)]
            broken = fail()
            data = File(f"http://127.0.0.1:{server.server_port}/data.txt")
            lines = count_lines(inputs=[data], outputs=[str(directory / "lines.txt")])
            results: dict[str, object] = {
                "sum": add(inputs=numbers).result(60),
                "again": add(inputs=[number.result(60) for number in numbers]).result(60),
                "joined": squares(3).result(60),
                "busy": busy(1.0).result(60),
                "failed": str(broken.exception(60)),
                "lines": Path(lines.outputs[0].result(60)).read_text().strip(),
            }
    finally:
        server.shutdown()
        server.server_close()
    return results


def rows(path: Path) -> dict[str, object]:
    """Return what the database holds: rows a table, and what they say of states, places and samples."""
    connection = sqlite3.connect(path)
    try:
        one = connection.execute
        found: dict[str, object] = {table: one(f'select count(*) from "{table}"').fetchone()[0] for table in TABLES}
        found["states"] = dict(one("select task_status, count(*) from task group by 1").fetchall())
        found["tries"] = dict(one("select task_executor, count(*) from try where pid > 0 group by 1").fetchall())
        found["verdicts"] = dict(one("select task_try_verdict, count(*) from try group by 1").fetchall())
        found["tasks with changes"] = one("select count(distinct task_id) from status").fetchone()[0]
        found["blocks with changes"] = one("select count(distinct block_id) from block_status").fetchone()[0]
        found["sampled"] = one("select count(*) > 0 from resource where task_id is not null").fetchone()[0]
        found["ended"] = one("select ended_how from workflow").fetchone()[0]
        return found
    finally:
        connection.close()


if __name__ == "__main__":
    here = Path(sys.argv[1])
    results = run(here)
    print(json.dumps({"results": results, "rows": rows(here / "runinfo" / "monitoring.db")}))
