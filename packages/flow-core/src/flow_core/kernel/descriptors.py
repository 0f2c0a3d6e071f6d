"""Descriptors 0 to 2 of a script that was started without them, as some daemons are."""

from __future__ import annotations

import os


def fill_standard_descriptors() -> list[int]:
    """Open /dev/null at those of the descriptors 0 to 2 that are closed; return which.

    Else the next files that are opened, sockets of Flow among them, take these numbers, and every child process takes
    them for its input, output and error.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    if closed:
        null = os.open(os.devnull, os.O_RDWR)
        for number in closed:
            os.dup2(null, number)
            os.set_inheritable(number, True)  # as those of every process are; dup2 of a number to itself does nothing
        if null not in closed:
            os.close(null)
    return closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
