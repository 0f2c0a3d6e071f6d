"""Tags and names of jobs: how they are made and checked."""

from __future__ import annotations

import re
import secrets

from flow_providers.errors import SubmitException

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_TAG = re.compile(r"[A-Za-z0-9]{1,40}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def new_tag() -> str:
    """Return a new tag: ``f`` and 12 base32 characters."""
    # 60 random bits, so tags of all runs differ; a letter first, and no sign that a scheduler's job name could not
    # have.
    return "f" + "".join(secrets.choice(_BASE32) for _ in range(12))


def check_tag(tag: str) -> str:
    """Return the tag. SubmitException: it is not 1 to 40 letters and digits."""
    if not _TAG.fullmatch(tag):
        raise SubmitException(f"job tag {tag!r} must be 1 to 40 ASCII letters and digits")
    return tag


def check_variable(name: str) -> str:
    """Return the name of an environment variable. SubmitException: no shell would take it."""
    if not _VARIABLE.fullmatch(name):
        raise SubmitException(f"{name!r} cannot be the name of an environment variable")
    return name


def safe_name(name: str, limit: int = 60) -> str:
    """Return a job name that files and schedulers accept: letters, digits, ``.``, ``_`` and ``-``, a letter first."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:limit]
    return safe if safe[:1].isalpha() else f"j{safe}"[:limit]
