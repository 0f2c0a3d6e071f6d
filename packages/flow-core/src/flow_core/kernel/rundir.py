"""The directory of a run: ``runinfo/NNN``, a new number for each."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from flow_core.errors import ConfigurationError

_TRIES = 10_000


def make_run_dir(base: str | os.PathLike[str]) -> Path:
    """Make and return the next numbered directory, absolute. Safe against other processes doing the same.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigurationError(
            "the current working directory was deleted, and tasks, staged files and relative paths need one: change to "
            "a directory that exists before you start the script"
        ) from None
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
        raise ConfigurationError(
            f"the run directory cannot be made under run_dir={str(base)!r}: {error}{_remedy(error)}"
        ) from error
    raise ConfigurationError(f"no number is free for a run under {top}")


def begin_error(run_dir: Path, error: OSError) -> ConfigurationError:
    """Return the error of a run whose files could not be made, with the file, where it is known, and what to do."""
    what = "" if error.filename is None else f"{error.filename!r}: "
    reason = error.strerror or str(error)
    return ConfigurationError(f"the run in {str(run_dir)!r} could not begin: {what}{reason}{_remedy(error)}")


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ". Free space there (also inodes: df -i), or name another place with run_dir="
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ". Name a place that you may write to with run_dir="
    return ""
