"""One run for the matrix of faults, as a script: it says how far it is as JSON lines, for who is to do harm.

Arguments: the kind of executor, the directory of the run, and, as JSON, what is to be other than usual (``USUAL``).
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import sys
import time
from collections import Counter
from typing import Any

import flow
from flow import Config, python_app
from flow.channels import SSHChannel
from flow.executors import HighThroughputExecutor, LowLatencyExecutor, ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow.providers import AdHocProvider, LocalProvider, SlurmProvider

USUAL: dict[str, Any] = {
    "tasks": 80,
    "nap_s": 0.05,
    "patience_s": 90.0,
    "ran": "",
    "executor": {},
    "provider": {},
    "slurm": {},
    "ssh": {},
    "monitoring": True,
}
"""``ran``: a file that gets one line for each begin of a task. ``executor`` and ``provider``: further options.
``slurm``: options of a SlurmProvider that takes the place of the LocalProvider; ``ssh``: options of the channel to a
host, for an AdHocProvider."""
BLOCKS = {"htex": HighThroughputExecutor, "llex": LowLatencyExecutor}


@python_app
def nap(number: int, seconds: float, ran: str = "") -> int:
    import os
    import time

    if ran:
        with open(ran, "ab", buffering=0) as file:
            file.write(f"{number} {os.getpid()}\n".encode())
    time.sleep(seconds)
    return number


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def executor_of(kind: str, setup: dict[str, Any]) -> Any:
    if kind == "threads":
        return ThreadPoolExecutor(label="x", max_threads=2)
    if kind == "pool":
        return concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    heartbeats = {"heartbeat_period": 0.5, "heartbeat_threshold": 4}
    blocks = {"init_blocks": 1, "max_blocks": 2, **setup["provider"]}
    provider = provider_of(setup, blocks)
    given = {"max_workers": 2, "cores_per_worker": 0.5, **heartbeats, **setup["executor"]}
    return BLOCKS[kind](label="x", provider=provider, **given)


def provider_of(setup: dict[str, Any], blocks: dict[str, Any]) -> Any:
    if setup["slurm"]:
        return SlurmProvider(**setup["slurm"], **blocks)
    if setup["ssh"]:
        return AdHocProvider(channels=[SSHChannel(**setup["ssh"])], **blocks)
    return LocalProvider(**blocks)


def main(kind: str, directory: str, changes: str = "{}") -> None:
    setup = {**USUAL, **json.loads(changes)}
    executor = executor_of(kind, setup)
    config = Config(
        executors=[executor],
        run_dir=f"{directory}/runinfo",
        strategy_period=0.5,
        monitoring=MonitoringHub() if setup["monitoring"] else None,
    )
    with flow.load(config) as kernel:
        nap(0, 0).result(timeout=setup["patience_s"])
        say(run_id=kernel.run_id)
        futures = [nap(number, setup["nap_s"], setup["ran"]) for number in range(setup["tasks"])]
        for future in futures[:10]:
            future.exception(timeout=setup["patience_s"])
        say(running=True)
        ends: Counter[str] = Counter()
        deadline = time.monotonic() + setup["patience_s"]
        for number, future in enumerate(futures):
            ends[end_of(future, number, deadline)] += 1
        later = [nap(number, 0) for number in range(10)]
        for number, future in enumerate(later):
            ends["later " + end_of(future, number, deadline)] += 1
        say(ends=ends)
        began = time.monotonic()
    say(cleanup_s=time.monotonic() - began)
    if kind == "pool":
        executor.shutdown()


def end_of(future: object, number: int, deadline: float) -> str:
    try:
        error = future.exception(timeout=max(0.1, deadline - time.monotonic()))  # type: ignore[attr-defined]
    except TimeoutError:
        return "stuck"
    if error is not None:
        return type(error).__name__
    return "right" if future.result() == number else "wrong"  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:])
