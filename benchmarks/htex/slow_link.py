"""Tasks over a slow link: how much longer they take than on two workers that never wait, in one run.

    python benchmarks/htex/slow_link.py [--tasks 1000] [--task-s 0.01] [--trips 0 0.1 1.0]

Two workers; a manager that reaches the interchange through a proxy which delays every byte by half of the round trip.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time

import flow_core as flow
from flow_core import Config, python_app
from flow_executors import HighThroughputExecutor
from flow_executors.testing.delay import SlowLink
from flow_providers import LocalProvider

COMMAND = "{{python}} -m {{module}} {{debug}} {{options}} --addresses=127.0.0.1 --port={port}"


@python_app
def sleep(seconds):
    import time

    time.sleep(seconds)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def measure(trip_s: float, tasks: int, task_s: float, heartbeats: tuple[float, float]) -> tuple[float, float]:
    """Return the seconds until the first task is done, and those of all tasks after it."""
    port = free_port()
    with SlowLink(port, trip_s / 2) as link, tempfile.TemporaryDirectory() as directory:
        executor = HighThroughputExecutor(
            label="htex",
            max_workers=2,
            cores_per_worker=0.5,
            worker_ports=(port,),
            heartbeat_period=heartbeats[0],
            heartbeat_threshold=heartbeats[1],
            launch_cmd=COMMAND.format(port=link.port),
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        began = time.monotonic()
        with flow.load(Config(executors=[executor], run_dir=directory)):
            sleep(task_s).result(timeout=120)
            ready = time.monotonic()
            for future in [sleep(task_s) for _ in range(tasks)]:
                future.result(timeout=300)
            return ready - began, time.monotonic() - ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--task-s", type=float, default=0.01)
    parser.add_argument("--trips", type=float, nargs="+", default=[0.0, 0.1, 1.0])
    parser.add_argument("--heartbeats", type=float, nargs=2, default=[30.0, 120.0])
    options = parser.parse_args()
    ideal_s = options.tasks * options.task_s / 2
    for trip_s in options.trips:
        ready_s, all_s = measure(trip_s, options.tasks, options.task_s, tuple(options.heartbeats))
        print(
            f"round trip {trip_s:5.3f} s: first result after {ready_s:6.2f} s, "
            f"{options.tasks} tasks of {options.task_s:g} s in {all_s:6.2f} s, {all_s / ideal_s:.2f} of the ideal",
            flush=True,
        )


if __name__ == "__main__":
    main()
