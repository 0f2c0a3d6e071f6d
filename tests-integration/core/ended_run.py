"""A run that ends badly: python ended_run.py DIRECTORY HOW, with checkpoint_mode='dfk_exit'."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from pathlib import Path

import flow_core as flow
from flow_core.executors.threads import ThreadPoolExecutor


@flow.python_app(cache=True)
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def main(directory: Path, how: str) -> None:
    """Run ten tasks, then end in the way asked for; the run is never cleaned up by this script."""
    config = flow.Config(
        executors=[ThreadPoolExecutor(max_threads=2)], run_dir=str(directory / "runinfo"), checkpoint_mode="dfk_exit"
    )
    if how == "own handler":
        signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
    flow.load(config)
    assert [double(number).result() for number in range(10)] == list(range(0, 20, 2))
    if how == "exception":
        raise RuntimeError("the script broke")
    if how == "exit":
        sys.exit(3)
    if how in ("SIGINT", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, how))
        signal.pause()
    if how == "own handler":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "loop":  # killed while it calls apps, from outside the main thread
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        numbers = itertools.count(10)
        while True:
            for future in [double(next(numbers)) for _ in range(100)]:
                future.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
