"""Check of files against the digests that users state for them."""

from __future__ import annotations

import os

from flow_core.remote.digests import digest_of
from flow_staging.transfer.failures import NotAsStated
from flow_staging.transfer.retry import Control


def check(path: str | os.PathLike[str], stated: str, control: Control) -> str:
    """Look whether a file has the digest that is stated, and return its digits.

    Raises:
        NotAsStated: it has another one.
        PermanentTransferError: the deadline passed, or the transfer is to stop.
        OSError: the file cannot be read.
    """
    found = digest_of(path, stated.partition(":")[0], control.check)
    if found != stated:
        raise NotAsStated(stated, found)
    return digits_of(stated)


def digits_of(stated: str | None) -> str:
    """Return the digits of a digest; empty where there is none."""
    return "" if stated is None else stated.partition(":")[2]
