"""What passed between the script and the interchange: a few sums, cheap enough to be kept always."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Sums since the start of an executor. Written by the client's own threads; a reader sees them within one message.

    Attributes:
        messages_out: Messages to the interchange.
        bytes_out: Their bytes.
        messages_in: Messages of the interchange.
        bytes_in: Their bytes.
        wakeups: How often the receiver thread woke up.
    """

    messages_out: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    wakeups: int = 0
