"""The stream between client and interchange: an AF_UNIX socket, each message with a u32 length in front.

Both classes are used by one thread at a time and never block when the socket does not.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterable
from itertools import islice

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer

MAX_MESSAGE = 1 << 31
"""Longest message that is accepted, in bytes."""
_LENGTH = struct.Struct("<I")
_ROOM = 256 << 10
_COPIED = 64 << 10
_JOINED = 4 << 10
_PARTS = 64


class LinkReader:
    """Cuts the stream into messages. Messages stay valid: each read that completes some leaves its buffer to them.

    Args:
        end: The socket.
        longest: Longest message that is accepted: there is room for it as soon as its length is known, and for no
            more than that before.
    """

    __slots__ = ("_buffer", "_filled", "_longest", "_socket", "closed", "more")

    def __init__(self, end: socket.socket, longest: int = MAX_MESSAGE) -> None:
        self._socket = end
        self._longest = longest
        self._buffer = bytearray(min(_ROOM, _LENGTH.size + longest))
        self._filled = 0
        self.closed = False
        self.more = False
        """Whether the last read took all that it had room for: another may find more. Else it is not worth a call."""

    def accept_any(self) -> None:
        """Accept messages of any length from now on."""
        self._longest = MAX_MESSAGE
        self._buffer += bytes(max(0, _ROOM - len(self._buffer)))

    def read(self) -> list[memoryview]:
        """Read once what is there and return the messages completed by it, in order.

        ``closed`` is True after the other side has ended and all it had written was read.

        Raises:
            BadMessage: a length is beyond the longest: the stream is out of step and of no more use.
        """
        room = memoryview(self._buffer)[self._filled :]
        self.more = False
        try:
            count = self._socket.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionError:
            count = 0
        self.more = count == len(room)
        if not count:
            self.closed = True
            return []
        self._filled += count
        return self._whole() or self._cut()

    def _whole(self) -> list[memoryview]:
        """Return the message if just one small one is there, as in a round trip: in fewer steps."""
        filled = self._filled
        if not _LENGTH.size <= filled <= _COPIED or _LENGTH.unpack_from(self._buffer)[0] != filled - _LENGTH.size:
            return []
        self._filled = 0
        return [memoryview(bytes(self._buffer[_LENGTH.size : filled]))]

    def _cut(self) -> list[memoryview]:
        buffer, filled, at = self._buffer, self._filled, 0
        bounds: list[tuple[int, int]] = []
        need = 0
        while filled - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, at)
            if size > self._longest:
                raise BadMessage(f"a message of {size} bytes: the stream is out of step")
            need = _LENGTH.size + size
            if filled - at < need:
                break
            bounds.append((at + _LENGTH.size, at + need))
            at += need
            need = 0
        if not bounds and need <= len(buffer):
            return []
        view = self._hand_over(at, need)
        return [view[start:end] for start, end in bounds]

    def _hand_over(self, at: int, need: int) -> memoryview:
        """Give the first ``at`` bytes away: little by copy, much with the buffer: a new one costs page faults."""
        buffer, rest = self._buffer, self._filled - at
        self._filled = rest
        if at <= _COPIED and need <= len(buffer):
            given = memoryview(bytes(memoryview(buffer)[:at]))
            buffer[:rest] = buffer[at : at + rest]
            return given
        self._buffer = bytearray(max(_ROOM, need))
        self._buffer[:rest] = memoryview(buffer)[at : at + rest]
        return memoryview(buffer)


class LinkWriter:
    """Sends messages; keeps what the socket does not take. The user watches ``pending`` and calls ``flush``."""

    __slots__ = ("_parts", "_socket", "pending", "sent")

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._parts: deque[Buffer] = deque()
        self.pending = 0
        self.sent = 0
        """Bytes that the socket has taken since the beginning."""

    @property
    def accepted(self) -> int:
        """Bytes given to ``write`` since the beginning; what was written before is out once ``sent`` reaches it."""
        return self.sent + self.pending

    def write(self, messages: Iterable[Buffer]) -> bool:
        """Send messages as far as the socket takes them; True when nothing is left pending.

        Raises:
            OSError: the other side has ended (BrokenPipeError, ConnectionResetError).
        """
        parts = self._parts
        for message in messages:
            size = len(message)
            if size <= _JOINED:
                parts.append(_LENGTH.pack(size) + message)
            else:
                parts.append(_LENGTH.pack(size))
                parts.append(message)
            self.pending += _LENGTH.size + size
        return self.flush() if parts else True

    def flush(self) -> bool:
        """Send what is pending; True when nothing is left. Raises as ``write``."""
        parts = self._parts
        while parts:
            try:
                if len(parts) == 1:
                    count = self._socket.send(parts[0])
                else:
                    count = self._socket.sendmsg(list(islice(parts, _PARTS)))
            except (BlockingIOError, InterruptedError):
                return False
            self.pending -= count
            self.sent += count
            self._advance(count)
        return True

    def _advance(self, count: int) -> None:
        parts = self._parts
        while parts and count >= len(parts[0]):
            count -= len(parts.popleft())
        if count:
            parts[0] = memoryview(parts[0])[count:]
