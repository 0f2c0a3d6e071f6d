"""Files of tasks of all ranks: each moves those of its own worker, and rank 0 passes the messages on, both ways."""

from __future__ import annotations

import os
from collections.abc import Callable

from flow_executors.manager.file_agent import AGENT_BITS
from flow_executors.manager.loop_parts import NodeFileMover
from flow_executors.wire.files import FileStep, unpack_file
from flow_executors.wire.kinds import Buffer


class RankFiles:
    """The files of all ranks, as the manager's loop has them. One thread."""

    def __init__(self, own: NodeFileMover) -> None:
        self._own = own
        self._outgoing: list[bytes] = []
        self._agents: dict[int, int] = {}  # upper bits of a transfer -> rank
        self.ready_fd = own.ready_fd
        self.tell: Callable[[int, bytes], None] = lambda rank, message: None
        """Sends a message to a rank; set before any comes."""
        self.tell_all: Callable[[bytes], None] = lambda message: None
        """Sends one to all ranks."""
        self.told_number: Callable[[int], None] = lambda number: None
        """Tells all ranks the number of the manager."""

    @property
    def apart(self) -> bool:
        """Whether the node of rank 0 does not see the script's files; each rank looks for itself."""
        return self._own.apart

    @apart.setter
    def apart(self, value: bool) -> None:
        self._own.apart = value

    def take(self, message: Buffer) -> None:
        """Take FILE of the script, for this rank or the one whose transfer it is."""
        file = unpack_file(message)
        rank = self._agents.get(file.transfer >> AGENT_BITS)
        if file.step == FileStep.LOGS:
            self._own.take(message)
            self.tell_all(bytes(message))
        elif rank is not None:
            self.tell(rank, bytes(message))
        else:
            self._own.take(message)

    def from_rank(self, rank: int, message: bytes) -> None:
        """Take FILE of a rank, for the interchange."""
        transfer = unpack_file(message).transfer
        if transfer:  # the ends of logs belong to none
            self._agents[transfer >> AGENT_BITS] = rank
        self._outgoing.append(message)
        os.eventfd_write(self.ready_fd, 1)

    def registered(self, number: int) -> None:
        """The manager is registered under this number."""
        self._own.registered(number)
        self.told_number(number)

    def outgoing(self) -> list[bytes]:
        """Return the messages for the interchange, once."""
        found = self._own.outgoing()
        found += self._outgoing
        self._outgoing = []
        return found
