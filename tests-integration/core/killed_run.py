"""A run to be killed: python killed_run.py DIRECTORY MODE TASKS. Tells on standard output what was seen done."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future
from pathlib import Path

import flow_core as flow
from flow_core.checkpoint.find import get_all_checkpoints
from flow_core.executors.threads import ThreadPoolExecutor


@flow.python_app(cache=True)
def work(number: int, journal: str) -> dict[str, object]:
    """Write down that this was run; return something worth a few records' sizes."""
    import os

    fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{number}\n".encode())
    os.close(fd)
    return {"number": number, "square": number * number, "load": "x" * (number % 7 * 1000)}


def _seen(future: Future[dict[str, object]]) -> None:
    os.write(1, f"done {future.result()['number']}\n".encode())


def main(directory: Path, mode: str, tasks: int) -> None:
    """Run all tasks, with every earlier checkpoint at hand."""
    run_dir = directory / "runinfo"
    config = flow.Config(
        executors=[ThreadPoolExecutor(max_threads=3)],
        run_dir=str(run_dir),
        checkpoint_mode=mode,  # type: ignore[arg-type]  # as given on the command line
        checkpoint_files=get_all_checkpoints(run_dir),
    )
    with flow.load(config):
        os.write(1, b"loaded\n")
        futures = [work(number, str(directory / "journal")) for number in range(tasks)]
        for future in futures:
            future.add_done_callback(_seen)
        assert [future.result()["square"] for future in futures] == [number * number for number in range(tasks)]
    os.write(1, b"complete\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
