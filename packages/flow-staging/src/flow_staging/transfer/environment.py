"""Variables of the environment, looked up at each use for little: each file of a run asks for several."""

from __future__ import annotations

import os


def variable(name: bytes) -> str:
    """Return a variable as it is now; empty where it is not set.

    ``os.environ.get`` encodes the name, raises and catches two errors where it is not set, and takes ten times as long.
    """
    values = getattr(os.environ, "_data", None)
    found = values.get(name) if type(values) is dict else os.environb.get(name)
    return os.fsdecode(found) if found else ""
