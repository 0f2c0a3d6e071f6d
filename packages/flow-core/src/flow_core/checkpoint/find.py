"""Search for the checkpoints of earlier runs."""

from __future__ import annotations

import os
from pathlib import Path

from flow_core.checkpoint.record import FAILURES_NAME, FILE_HEADER_BYTES, FILE_NAME


def get_all_checkpoints(rundir: str | os.PathLike[str] = "runinfo") -> list[str]:
    """Return the checkpoint directories of all runs under a directory, oldest run first; none if it does not exist.

    Those without any record are left out. Made for ``config.checkpoint_files = get_all_checkpoints()``.
    """
    files = Path(rundir).glob(f"*/checkpoint/{FILE_NAME}")
    # A run that found all its results has a header alone: as the last checkpoint it would hide the one that has them.
    found = [path.parent for path in files if path.stat().st_size > FILE_HEADER_BYTES]
    return [str(path.resolve()) for path in sorted(found, key=lambda path: _order(path.parent))]


def get_last_checkpoint(rundir: str | os.PathLike[str] = "runinfo") -> list[str]:
    """Return the checkpoint directory of the last run that has one, as a list of one; empty if there is none.

    A checkpoint holds what its run stored, not what that run found in earlier ones: to find everything again use
    ``get_all_checkpoints``, or make one of many with ``flow checkpoint compact``.
    """
    return get_all_checkpoints(rundir)[-1:]


def get_all_records(rundir: str | os.PathLike[str] = "runinfo") -> list[str]:
    """Return what ``get_all_checkpoints`` does, and the checkpoint directories that hold nothing but failed calls."""
    names = (FILE_NAME, FAILURES_NAME)
    files = [path for name in names for path in Path(rundir).glob(f"*/checkpoint/{name}")]
    found = {path.parent for path in files if path.stat().st_size > FILE_HEADER_BYTES}
    return [str(path.resolve()) for path in sorted(found, key=lambda path: _order(path.parent))]


def _order(run: Path) -> tuple[int, float, str]:
    """Numbered runs by number; others before them by age."""
    if run.name.isdecimal():
        # As numbers, since "1000" comes before "999" as text.
        return (1, float(int(run.name)), run.name)
    return (0, run.stat().st_mtime, run.name)
