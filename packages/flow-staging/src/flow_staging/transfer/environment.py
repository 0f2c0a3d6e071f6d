"""Variables of the environment, looked up at each use for little: each file of a run asks for several."""

from __future__ import annotations

import os


def variable(name: bytes) -> str:
    """Return a variable as it is now; empty where it is not set.

    ``os.environ.get`` encodes the name, raises and catches two errors where it is not set, and takes ten times as long.
    """
    found = raw_variable(name)
    return os.fsdecode(found) if found else ""


def raw_variable(name: bytes) -> bytes | None:
    """Return the bytes of a variable as it is now, to be compared with what they were; None where it is not set."""
    values = getattr(os.environ, "_data", None)
    found: bytes | None = values.get(name) if type(values) is dict else os.environb.get(name)
    return found
