"""The loop in containers of python apps: tasks one after another, from files of a directory.

``container_code`` says how it is begun and what it answers. Standard library and the leaf only: an image needs Python,
but not Flow.
"""

from __future__ import annotations

import os
import sys

WELL = "0"


def serve(word: str, directory: str) -> None:
    """Run python apps until the standard input ends. The main thread of a process of its own."""
    from flow_core.remote.parcel_run import run_parcel

    numbers, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # What tasks print is none of the answers: it goes with their standard error, to the log of the worker.
    os.dup2(2, 1)
    with open(numbers, encoding="ascii") as lines:
        for line in lines:
            number = line.strip()
            if number == "end":
                return
            with open(os.path.join(directory, f"{number}.task"), "rb") as task:
                result = run_parcel(task.read())
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            with open(os.path.join(directory, f"{number}.result"), "wb") as file:
                file.write(result)
            os.write(answers, f"{word} {number} {WELL}\n".encode())
