"""``python -m flow_core.remote run TASKFILE RESULTFILE``: run one task from a file.

Exit status 0: the task returned; 1: it raised (the exception is in the result file); 2: wrong usage or no file.
"""

from __future__ import annotations

import sys

from flow_core.remote.task_file import run_file


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    if len(arguments) != 3 or arguments[0] != "run":
        sys.stderr.write("usage: python -m flow_core.remote run TASKFILE RESULTFILE\n")
        return 2
    try:
        # Plain sys.argv and no parser of options: this starts once a task, so each import counts.
        return 0 if run_file(arguments[1], arguments[2]) else 1
    except OSError as error:
        sys.stderr.write(f"flow_core.remote: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
