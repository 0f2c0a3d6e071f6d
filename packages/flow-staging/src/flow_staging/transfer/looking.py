"""Version look-ups: whether files are there on the other side, and in which version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from flow_core.files import File
from flow_core.interfaces.staging import Versions
from flow_staging.transfer.failures import PermanentTransferError, TransientTransferError
from flow_staging.transfer.handle import Handle
from flow_staging.transfer.pool import TransferJob, TransferPool
from flow_staging.transfer.retry import Control

_LONGEST_S = 60.0  # seconds for one file: a task waits for its look, and goes on without a version after it
_UNKNOWN = "?"  # among versions, where the empty text means "not there"

Look = Callable[[File, Control], str | None]
"""Returns the version of a file as text, empty if it is not there, None if that cannot be told.

Raises TransientTransferError or PermanentTransferError."""


def look_at(pool: TransferPool, look: Look, files: Sequence[File], hosts: Sequence[str]) -> Future[Versions]:
    """Look at files, at each for a minute at most; does not block. What goes wrong with one leaves its version unknown.

    Args:
        pool: Whose threads look.
        look: Looks at one.
        files: The files.
        hosts: The other side of each.
    """
    found: Future[Versions] = Future()
    jobs = [TransferJob("", partial(_one, look, file), host) for file, host in zip(files, hosts, strict=True)]
    pool.submit(jobs).add_done_callback(partial(_take_versions, found, len(files)))
    return found


def _one(look: Look, file: File, stop: Handle) -> str:
    try:
        version = look(file, Control(_LONGEST_S, stop))
    except (TransientTransferError, PermanentTransferError):
        return _UNKNOWN
    return _UNKNOWN if version is None else version


def _take_versions(found: Future[Versions], count: int, looked: Future[Sequence[str]]) -> None:
    if looked.cancelled() or looked.exception() is not None:
        found.set_result((None,) * count)
    else:
        found.set_result(tuple(None if version == _UNKNOWN else version for version in looked.result()))
