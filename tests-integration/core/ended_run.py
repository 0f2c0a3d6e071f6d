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
    number = signal.SIGHUP if "SIGHUP" in how else signal.SIGTERM
    if how.startswith("own handler"):
        signal.signal(number, lambda *_: print("mine", flush=True))
    if how == "ignored SIGHUP":  # as nohup does
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    flow.load(config)
    assert [double(number).result() for number in range(10)] == list(range(0, 20, 2))
    if how == "exception":
        raise RuntimeError("the script broke")
    if how == "exit":
        sys.exit(3)
    if how in ("SIGINT", "SIGTERM", "SIGHUP"):
        os.kill(os.getpid(), getattr(signal, how))
        signal.pause()
    if how == "both":  # as when a session ends: by the system, by the shell, by the system again
        for each in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), each)
        signal.pause()
    if how.startswith("own handler") or how == "ignored SIGHUP":
        os.kill(os.getpid(), number)
    if how == "loop":  # killed while it calls apps, from outside the main thread
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        numbers = itertools.count(10)
        while True:
            for future in [double(next(numbers)) for _ in range(100)]:
                future.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
