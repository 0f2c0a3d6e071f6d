"""Journals of batches, as the script reads them, see ``flow_core.remote.parcel_batch``."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flow_core.folders import make_directory
from flow_core.remote.parcel_batch import BEGUN, CLOSED, ENDED, RECORD, WORKER, machine

_DIRECTORY = "batches"


@dataclass(slots=True)
class Told:
    """What a journal says.

    Attributes:
        begun: When each task began, in ns UTC, by its index.
        results: Results of those that have ended, by index; empty where a result was too long for a journal.
        pid: Process that runs it; 0 where nobody has begun with it.
        node: Its node.
        here: Whether that is this machine, so that the journal is complete whatever dies there.
    """

    begun: dict[int, int] = field(default_factory=dict)
    results: dict[int, bytes] = field(default_factory=dict)
    pid: int = 0
    node: str = ""
    here: bool = False


class Journals:
    """The journals of one executor. Any thread."""

    def __init__(self, directory: Path) -> None:
        """Make their directory. Raises OSError."""
        self._directory = directory / _DIRECTORY
        make_directory(self._directory, 0o700)
        self._machine = machine()

    def path(self, number: int) -> str:
        """Return the path of a batch's journal."""
        return str(self._directory / str(number))

    def read(self, number: int) -> Told:
        """Return what a batch's journal says; nothing where there is none. Never raises."""
        told, data = Told(), b""
        with suppress(OSError):
            data = Path(self.path(number)).read_bytes()
        at, end = 0, len(data)
        while at + RECORD.size <= end:
            kind, index, time_ns, length = RECORD.unpack_from(data, at)
            at += RECORD.size
            if at + length > end:
                break  # it is being written
            if kind == WORKER:
                told.pid = index
                told.node, _, there = data[at : at + length].decode(errors="replace").partition(" ")
                told.here = bool(there) and there == self._machine
            elif kind == BEGUN:
                told.begun[index] = time_ns
            elif kind == ENDED:
                told.results[index] = data[at : at + length]
            at += length
        return told

    def begun(self, number: int, at_ns: int, node: str) -> None:
        """Write on behalf of a worker that sees no journal: it has begun with the first task. Never raises."""
        with suppress(OSError):
            Path(self.path(number)).write_bytes(
                RECORD.pack(WORKER, 0, at_ns, len(node.encode())) + node.encode() + RECORD.pack(BEGUN, 0, at_ns, 0)
            )

    def close(self, number: int) -> None:
        """Have a batch begin with nothing more, where its worker sees this. Never raises."""
        with suppress(OSError):
            os.close(os.open(self.path(number) + CLOSED, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def remove(self, number: int, *, closed: bool) -> None:
        """Remove a journal that nobody needs any more. Never raises."""
        path = self.path(number)
        with suppress(OSError):
            os.unlink(path)
        if closed:
            with suppress(OSError):
                os.unlink(path + CLOSED)

    def remove_all(self) -> None:
        """Remove what is left, and the directory. Never raises."""
        with suppress(OSError):
            for path in list(self._directory.iterdir()):
                path.unlink()
            self._directory.rmdir()
