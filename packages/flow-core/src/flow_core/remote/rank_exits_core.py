"""What the exit code of a command with ranks means, by the last words of its mpiexec. Pure.

The code is one that mpiexec made: 128 and a number is a signal only where a rank has failed. Open MPI gives codes above
128 to its own errors, too.
"""

from __future__ import annotations

import re
import signal

_NOT_STARTED = re.compile(r"was\s+unable\s+to\s+(?:find|launch)\s+the\s+specified|execvp error on file (?P<hydra>\S+)")
_EXECUTABLE = re.compile(r"^ *Executable: +(.+)$", re.MULTILINE)
_RANK_FAILED = re.compile(r"Primary job\s+terminated normally, but")
_RANK_SIGNAL = re.compile(r"exited\s+on\s+signal (\d+)")
_RANK_CODE = re.compile(r"^ *Exit code: +(\d+)$", re.MULTILINE)


def how_ranks_ended(code: int, tail: str) -> str:
    """Return how a command with ranks failed, as the continuation of "it failed"; empty where its code says it.

    Args:
        code: The exit code of the command.
        tail: The last lines of its standard error.
    """
    unstarted = _NOT_STARTED.search(tail)
    if unstarted:
        named = _EXECUTABLE.search(tail)
        program = unstarted["hydra"] or (named[1].strip() if named else "")
        what = f"the program {program!r}" if program else "the program"
        return f"with exit code {code}: mpiexec could not start {what} (check PATH and the environment of the worker)"
    if code <= 128:
        return ""
    told = _RANK_SIGNAL.search(tail)
    if told:
        return f"with exit code {code}: a rank was ended by signal {_named(int(told[1]))}"
    # Where a rank has exited with a code of its own, a program may have chosen that.
    if _RANK_FAILED.search(tail) and not _RANK_CODE.search(tail) and _known(code - 128):
        return f"with exit code {code}: a rank was ended by signal {_named(code - 128)}, as it seems"
    return f"with exit code {code}, which is of its launcher or of a rank"


def _known(number: int) -> bool:
    return number in {one.value for one in signal.Signals}


def _named(number: int) -> str:
    return f"{number} ({signal.Signals(number).name})" if _known(number) else str(number)
