"""The directory of a run: ``runinfo/NNN``, a new number for each."""

from __future__ import annotations

import os
from pathlib import Path

from flow_core.errors import ConfigurationError

_TRIES = 10_000


def make_run_dir(base: str | os.PathLike[str]) -> Path:
    """Make and return the next numbered directory, absolute. Safe against other processes doing the same.

    Raises:
        ConfigurationError: it cannot be made.
    """
    top = Path(base).absolute()
    try:
        top.mkdir(parents=True, exist_ok=True)
        number = max((int(entry) for entry in os.listdir(top) if entry.isdecimal()), default=-1)
        for candidate in range(number + 1, number + 1 + _TRIES):
            directory = top / f"{candidate:03d}"
            try:
                directory.mkdir(mode=0o755)
            except FileExistsError:
                continue
            return directory
    except OSError as error:
        raise ConfigurationError(f"the run directory cannot be made under run_dir={str(base)!r}: {error}") from error
    raise ConfigurationError(f"no number is free for a run under {top}")
