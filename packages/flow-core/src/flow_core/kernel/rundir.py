"""Run directories: ``runinfo/NNN``, a new number for each run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flow_core.errors import ConfigurationError
from flow_core.folders import make_directory
from flow_core.own_files import user_name
from flow_core.write_remedies import write_remedy

_TRIES = 10_000  # numbers that are tried; each that is taken meanwhile is a run that began at the same moment
_NUMBER = re.compile(r"\d{1,9}")
"""Name of a run. A longer one, of a directory that any user has made, is none: it would leave none for the next."""
_ROOT = 0  # its user id: root can replace files anywhere in any case


_MODES = {"private": 0o700, "group": 0o750, "umask": 0o755}


def make_run_dir(base: str | os.PathLike[str], mode: str = "private", trusted: frozenset[int] = frozenset()) -> Path:
    """Make and return the next numbered directory, absolute. Safe against other processes doing the same.

    ``mode`` says who may look into it, and into ``base`` if that is made: ``private``, ``group`` or ``umask``.
    ``trusted`` are users whose directory ``base`` may be, beside this one and root.

    Raises:
        ConfigurationError: it cannot be made, or ``base`` belongs to somebody else.
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
        make_directory(top.parent)
        _make(top, mode, exist_ok=True)
        _check_owner(top, trusted)
        number = max(map(int, filter(_NUMBER.fullmatch, os.listdir(top))), default=-1)
        # mkdir decides which run has a number: it is atomic on network file systems, too, where locks may not work.
        for candidate in range(number + 1, number + 1 + _TRIES):
            directory = top / f"{candidate:03d}"
            try:
                _make(directory, mode)
            except FileExistsError:
                continue
            return directory
    except OSError as error:
        raise ConfigurationError(
            f"the run directory cannot be made under run_dir={str(base)!r}: {error}{write_remedy(error)}"
        ) from error
    raise ConfigurationError(f"no number is free for a run under {top}")


def _check_owner(top: Path, trusted: frozenset[int]) -> None:
    """Refuse a directory of another user, who could put job scripts of their own in the place of a run's.

    Raises ConfigurationError.
    """
    # Both the link and what it names: the owner of either can put another directory in its place.
    strangers = {os.lstat(top).st_uid, os.stat(top).st_uid} - trusted - {_ROOT, os.geteuid()}
    for uid in strangers:
        raise ConfigurationError(
            f"run_dir={str(top)!r} belongs to user {user_name(uid)}, or is their link, so they could replace "
            "what a run writes there, job scripts too: name another run_dir; or, if you would run a script of theirs, "
            f"Config(trust_owner=[{user_name(uid)}])"
        )


def _make(directory: Path, mode: str, *, exist_ok: bool = False) -> None:
    try:
        directory.mkdir(mode=_MODES[mode])
    except FileExistsError:
        if not (exist_ok and directory.is_dir()):
            raise
        return
    if mode == "group":  # whatever the umask takes away
        directory.chmod(_MODES[mode])


def begin_error(run_dir: Path, error: OSError) -> ConfigurationError:
    """Return the error of a run whose files could not be made, with the file, where it is known, and what to do."""
    what = "" if error.filename is None else f"{error.filename!r}: "
    reason = error.strerror or str(error)
    return ConfigurationError(f"the run in {str(run_dir)!r} could not begin: {what}{reason}{write_remedy(error)}")
