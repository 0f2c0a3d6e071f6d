"""How results leave a manager: to the interchange, and one that somebody waits for straight to the client before.

The client then need not wait until two more processes are awake. The interchange hears of that result a little later,
with whatever wakes the manager next: it then works while the client and the workers do. It is all the same to everybody
else: the client takes what comes first and drops what it knows, and the manager keeps each result until the interchange
says that the client has it.
"""

from __future__ import annotations

from flow_core.remote.faults import point
from flow_executors.manager.line import Line
from flow_executors.manager.outbox import Outbox
from flow_executors.wire.single import marked_told, one_result

HOLD_BACK_MS = 2
"""The interchange does not wait longer for a result that the client knows."""

_LARGEST = 32 << 10
"""A longer message is not written twice: it would take more time than it saves, and may not fit into the socket."""


class Delivery:
    """Empties the outbox. One thread. To be used while the manager is registered, but for ``forget``."""

    def __init__(self, line: Line, outbox: Outbox) -> None:
        self._line = line
        self._outbox = outbox
        self.held_back = b""
        """The message of a result that the client knows and the interchange does not yet."""

    def all(self) -> None:
        """Send all results to the interchange."""
        self.rest()
        if self._outbox:
            self._line.send(self._outbox.pack())

    def one(self, hold_back: bool) -> None:
        """Send the only result there is, to the client first if that can be done; ``hold_back`` it from the other."""
        self.rest()
        message = self._outbox.pack()
        if not (self._line.short and self._fits(message) and self._line.tell(message)):
            self._line.send(message)
            return
        point("manager.told")
        self.held_back = marked_told(message)
        if not hold_back:
            self.rest()

    @staticmethod
    def _fits(message: bytes) -> bool:
        return len(message) <= _LARGEST and one_result(message) is not None

    def rest(self) -> None:
        """Send what was held back."""
        if self.held_back:
            self._line.send(self.held_back)
            self.held_back = b""

    def forget(self) -> None:
        """Hold nothing back: the interchange is gone, and the next one is sent all that was not acknowledged."""
        self.held_back = b""
