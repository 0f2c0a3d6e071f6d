"""Tags and names of jobs: how they are made and checked."""

from __future__ import annotations

import re
import secrets

from flow_providers.errors import SubmitException

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_TAG = re.compile(r"[A-Za-z0-9]{1,40}")
_ROOMY = 30
"""Characters of a job name that have room for a tag and what is readable."""
_SHORT = 7
"""Characters of a tag in short names: 30 random bits tell the jobs of one user apart."""
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


def tagged_name(tag: str, name: str, limit: int) -> str:
    """Return the name of a job for a scheduler that takes so many characters: its tag, a dot, and its own name.

    Where there is little room it has the begin of the tag and the end of the name, which tells blocks apart.
    """
    # The tag comes first: it must survive cuts, and is what jobs are found by.
    whole = f"{tag}.{safe_name(name)}"
    if len(whole) <= limit or limit >= _ROOMY:
        return whole[:limit]
    end = safe_name(name)[-(limit - _SHORT - 1) :].lstrip("._-")
    return f"{tag[:_SHORT]}.{end}"


def is_tagged(name: str, tag_prefix: str) -> bool:
    """Return whether the name of a job has a tag that begins with ``tag_prefix``, as far as there was room for it."""
    # The dot after the tag tells our names from those of other jobs that happen to begin like it.
    head, dot, _ = name.partition(".")
    return bool(dot) and (head.startswith(tag_prefix) or (len(head) == _SHORT and tag_prefix.startswith(head)))


def safe_name(name: str, limit: int = 60) -> str:
    """Return a job name that files and schedulers accept: letters, digits, ``.``, ``_`` and ``-``, a letter first."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:limit]
    return safe if safe[:1].isalpha() else f"j{safe}"[:limit]
