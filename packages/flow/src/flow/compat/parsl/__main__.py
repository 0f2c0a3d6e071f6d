"""``python -m flow.compat.parsl script.py ARGS`` and ``python -m flow.compat.parsl -m module ARGS``."""

from __future__ import annotations

import sys

from flow.compat.parsl.running import run_module, run_script
from flow_core.errors import ConfigurationError

_USAGE = "usage: python -m flow.compat.parsl [-m MODULE | SCRIPT] [ARGUMENTS]\n"


def main(arguments: list[str]) -> None:
    """Run what the arguments name; exit with 2 where they name nothing."""
    if not arguments or arguments == ["-m"] or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments[:1] in (["-h"], ["--help"]) else sys.stderr).write(_USAGE)
        sys.exit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    try:
        if arguments[0] == "-m":
            run_module(arguments[1], arguments[2:])
        else:
            run_script(arguments[0], arguments[1:])
    except ConfigurationError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
        sys.exit(f"flow: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
