"""A run that ends badly: python ended_run.py DIRECTORY HOW, with checkpoint_mode='dfk_exit'."""

from __future__ import annotations

import os
import signal
import sys
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
    flow.load(config)
    assert [double(number).result() for number in range(10)] == list(range(0, 20, 2))
    if how == "exception":
        raise RuntimeError("the script broke")
    if how == "exit":
        sys.exit(3)
    if how in ("SIGINT", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, how))
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
