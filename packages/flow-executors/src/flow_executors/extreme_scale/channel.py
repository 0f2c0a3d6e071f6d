"""Messages over MPI that never block: tags are kinds, and long messages go in pieces. One thread, that of MPI."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

_PIECE = 64 << 20
"""Bytes of one message of MPI: counts of older releases end at 2 GiB, and each is received into room of its own."""
_MORE = 128
"""Added to the tag of a piece that others follow."""
# Messages taken in one look, so that what they lead to is done in between.
_AT_ONCE = 512
# Seconds between looks while something is waited for that must leave.
_LOOK_S = 1e-4


class Communicator(Protocol):
    """What is used of a communicator of mpi4py."""

    @property
    def rank(self) -> int:
        """Number of this process."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def Isend(self, buf: object, dest: int, tag: int) -> Request:  # noqa: N802 - the names are MPI's
        """Begin to send."""
        ...

    def Iprobe(self, source: int, tag: int, status: Status) -> bool:  # noqa: N802
        """Tell whether there is a message, and of whom."""
        ...

    def Recv(self, buf: object, source: int, tag: int) -> None:  # noqa: N802
        """Receive a message."""
        ...


class Request(Protocol):
    """A message that is being sent."""

    def Test(self) -> bool:  # noqa: N802
        """Tell whether it has left."""
        ...


class Status(Protocol):
    """What is known of a message that is there."""

    def Get_source(self) -> int:  # noqa: N802
        """Return who sent it."""
        ...

    def Get_tag(self) -> int:  # noqa: N802
        """Return its tag."""
        ...

    def Get_count(self, datatype: object) -> int:  # noqa: N802
        """Return its length."""
        ...


class RankChannel:
    """This rank's way to the others.

    Args:
        comm: Communicator of all ranks.
        datatype: MPI's type of bytes.
        status: Room for what is known of a message that came.
        anybody: MPI's name for any source and any tag.
    """

    def __init__(self, comm: Communicator, datatype: object, status: Status, anybody: tuple[int, int]) -> None:
        self._comm = comm
        self._datatype = datatype
        self._status = status
        self._source, self._tag = anybody
        self._leaving: deque[tuple[Request, object]] = deque()
        self._parts: dict[int, list[bytes]] = {}

    def send(self, rank: int, kind: int, data: bytes | memoryview = b"") -> None:
        """Begin to send a message, after those that were sent before; does not wait."""
        view = memoryview(data)
        while len(view) > _PIECE:
            self._begin(rank, kind + _MORE, view[:_PIECE])
            view = view[_PIECE:]
        self._begin(rank, kind, view if len(view) < len(data) else data)

    def _begin(self, rank: int, tag: int, data: bytes | memoryview) -> None:
        request = self._comm.Isend([data, self._datatype], rank, tag)
        # The bytes are MPI's until they have left.
        if not request.Test():
            self._leaving.append((request, data))

    @property
    def waiting(self) -> bool:
        """Whether a message has come."""
        return self._comm.Iprobe(self._source, self._tag, self._status)

    def receive(self) -> list[tuple[int, int, bytes]]:
        """Return the messages that came, as (rank, kind, bytes); not all, where they are very many."""
        self._forget()
        found: list[tuple[int, int, bytes]] = []
        status, datatype = self._status, self._datatype
        while len(found) < _AT_ONCE and self.waiting:
            source, tag = status.Get_source(), status.Get_tag()
            room = bytearray(status.Get_count(datatype))
            self._comm.Recv([room, datatype], source, tag)
            piece = bytes(room)
            if tag >= _MORE:
                self._parts.setdefault(source, []).append(piece)
                continue
            parts = self._parts.pop(source, None)
            found.append((source, tag, piece if parts is None else b"".join((*parts, piece))))
        return found

    def _forget(self) -> None:
        leaving = self._leaving
        while leaving and leaving[0][0].Test():
            leaving.popleft()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all has left that was sent; False if it has not within the time."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._forget()
            if not self._leaving:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_S)


class IdlePace:
    """How long to sleep between looks at MPI, which has no descriptor to wait for: the longer nothing came, the longer.

    A rank that looked without sleeping would take a core from the tasks.
    """

    _AWAKE_S = 0.005
    _DROWSY_S = 0.2

    def __init__(self, longest_ms: int) -> None:
        self._longest_ms = longest_ms
        self._since = 0.0

    def stirred(self, now: float) -> None:
        """Something came, or was sent that is answered soon."""
        self._since = now

    def nap_ms(self, now: float) -> int:
        """Return for how many milliseconds to wait for descriptors; 0: sleep ``LOOK_S`` instead."""
        idle = now - self._since
        return 0 if idle < self._AWAKE_S else 1 if idle < self._DROWSY_S else self._longest_ms


LOOK_S = _LOOK_S
"""Seconds of the shortest sleep between two looks: 10,000 a second at most."""
