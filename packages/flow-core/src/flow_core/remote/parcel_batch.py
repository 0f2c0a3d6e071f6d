"""Batches of parcels: several tasks as one task of an engine, and the journal by which their script follows them.

A journal is a file in a directory of the script's run, where that is seen: what began and what ended is appended as it
happens. So a batch that is lost loses only what had begun and not ended, the script learns of starts, and it can take
back what has not begun. On a machine that does not see the directory there is none, and a batch is lost whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct

from flow_core.remote.parcel_run import run_parcel

BUDGET_S = 0.2
"""Seconds after which a batch begins with nothing more: what is left goes back to the script, and to other workers."""
LONGEST_KEPT = 64 << 10
"""Bytes of the longest result that stands in a journal: longer ones are written once, to the engine."""
RECORD = Struct("<cIqI")
"""A record of a journal: kind, index of the task, time in ns UTC, and bytes that follow."""
BEGUN, ENDED, WORKER = b"B", b"E", b"W"
CLOSED = ".closed"
"""Ending of the file by which a script tells that a batch is to begin with nothing more."""


class BatchRunTwice(Exception):
    """A batch had begun before, on a worker that was lost: its engine runs it again, which nobody asked for."""


class _Journal:
    """The journal of one batch, as its worker writes it. Without one tasks run all the same."""

    def __init__(self, path: str) -> None:
        """Begin it. Raises BatchRunTwice."""
        self._closed_by = path + CLOSED
        self._file = -1
        # The directory is the script's: where it is missing, nothing is made in its place.
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise BatchRunTwice(
                "an engine has given the same tasks to a second worker: the script makes tries"
            ) from None
        except OSError:
            pass
        if self._file >= 0:
            self._write(WORKER, os.getpid(), f"{os.uname().nodename} {machine()}".encode())

    def begin(self, index: int) -> bool:
        """Note that a task begins; return whether it may."""
        if self._file < 0:
            return True
        # In this order, as the script writes and reads in the other one: so one of both sees the other.
        self._write(BEGUN, index)
        return not os.path.exists(self._closed_by)

    def end(self, index: int, result: bytes) -> None:
        """Note that a task has ended, and its result where that is short."""
        if self._file >= 0:
            self._write(ENDED, index, result if len(result) <= LONGEST_KEPT else b"")

    def close(self) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)

    def _write(self, kind: bytes, index: int, data: bytes = b"") -> None:
        with suppress(OSError):  # a full disk: what is not noted counts as lost where the worker dies
            os.write(self._file, RECORD.pack(kind, index, time.time_ns(), len(data)) + data)


def machine() -> str:
    """Return what tells this machine, since it was booted, from others; empty where nothing does."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def run_batch(parcels: Sequence[bytes], journal: str = "", *, alone: bool = False) -> list[bytes | None]:
    """Run tasks of ``pack_task`` one after the other; return their results for ``unpack_result``.

    Args:
        parcels: The tasks.
        journal: Path of the journal; empty for none.
        alone: Whether no other task runs in this process meanwhile, on whichever thread this is.

    Returns:
        A result for each; None for one that has not begun, since time was up or the script has closed the batch.

    Raises:
        BatchRunTwice: its journal says that it has begun before.
    """
    results: list[bytes | None] = [None] * len(parcels)
    until = time.monotonic() + BUDGET_S
    notes = _Journal(journal) if journal else None
    try:
        for index, parcel in enumerate(parcels):
            if index and time.monotonic() >= until:
                break
            if notes is not None and not notes.begin(index):
                break
            result = results[index] = run_parcel(parcel, alone=alone)
            if notes is not None:
                notes.end(index, result)
    finally:
        if notes is not None:
            notes.close()
    return results
