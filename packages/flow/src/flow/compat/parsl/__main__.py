"""``python -m flow.compat.parsl script.py ARGS`` and ``python -m flow.compat.parsl -m module ARGS``."""

from __future__ import annotations

import os
import sys

from flow.compat import parsl
from flow.running import missing_module, run_module, run_script

_USAGE = "usage: python -m flow.compat.parsl [-m MODULE | SCRIPT] [ARGUMENTS]"


def main(arguments: list[str]) -> None:
    """Run what the arguments name; exit with 2 where they name nothing."""
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{_USAGE}\n")
        return
    if not arguments or arguments == ["-m"]:
        sys.stderr.write(f"{_USAGE}\n")
        sys.exit(2)
    parsl.install()
    if arguments[0] == "-m":
        if missing := missing_module(arguments[1]):
            sys.stderr.write(f"flow: there is no module {missing!r}\n")
            sys.exit(2)
        run_module(arguments[1], arguments[2:])
        return
    if not os.path.isfile(arguments[0]):
        what = "is not a file" if os.path.exists(arguments[0]) else "there is no such script"
        sys.stderr.write(f"flow: {arguments[0]}: {what}\n")
        sys.exit(2)
    run_script(arguments[0], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
