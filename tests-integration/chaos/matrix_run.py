"""One run for the matrix of faults, as a script: it says how far it is as JSON lines, for who is to do harm.

Arguments: the kind of executor, the directory of the run.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider

TASKS = 80
NAP_S = 0.05
PATIENCE_S = 90.0
KINDS = {"htex": HighThroughputExecutor, "llex": LowLatencyExecutor}


@python_app
def nap(number: int, seconds: float) -> int:
    import time

    time.sleep(seconds)
    return number


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(kind: str, directory: str) -> None:
    executor = KINDS[kind](
        label="x",
        max_workers=2,
        cores_per_worker=0.5,
        heartbeat_period=0.5,
        heartbeat_threshold=4,
        provider=LocalProvider(init_blocks=1, max_blocks=2),
    )
    config = Config(
        executors=[executor],
        run_dir=f"{directory}/runinfo",
        strategy_period=0.5,
        monitoring=MonitoringHub(),
    )
    with flow.load(config) as kernel:
        nap(0, 0).result(timeout=PATIENCE_S)
        say(run_id=kernel.run_id)
        futures = [nap(number, NAP_S) for number in range(TASKS)]
        for future in futures[:10]:
            future.exception(timeout=PATIENCE_S)
        say(running=True)
        ends: Counter[str] = Counter()
        deadline = time.monotonic() + PATIENCE_S
        for number, future in enumerate(futures):
            ends[end_of(future, number, deadline)] += 1
        later = [nap(number, 0) for number in range(10)]
        for number, future in enumerate(later):
            ends["later " + end_of(future, number, deadline)] += 1
        say(ends=ends)
        began = time.monotonic()
    say(cleanup_s=time.monotonic() - began)


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
