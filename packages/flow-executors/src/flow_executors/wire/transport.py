"""Streams of messages between processes of one machine, and the parts of long messages over the network.

A stream is an AF_UNIX socket, each message with a u32 length in front; readers and writers are used by one thread at a
time and never block when the socket does not. The name of a listening socket is abstract (Linux): nothing of it is left
when the processes are gone. Both sides ask the kernel for the other's user and refuse all but their own, so a stream
needs no encryption. Over the network, managers send long messages in parts of ``PART_BYTES``: a stranger may
announce a frame of any length before a key is known, and ZeroMQ bounds frames, not messages, with one bound for all
peers.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

import zmq

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer

PART_BYTES = 64 << 10
"""Longest part in bytes. A frame this long costs some 40 us of encryption: one more per 64 KiB is not noticed."""
LONGEST_FRAME = PART_BYTES + 256
"""Longest frame that the interchange accepts: a part, and what CurveZMQ adds to it (33 bytes) and might."""
HANDSHAKE_MS = 15_000
"""A connection must have shown its key after so long: four round trips of a slow link, which take 1 to 3 s each."""


def split(message: Buffer) -> list[Buffer]:
    """Return the parts of a message, which are views of it."""
    if len(message) <= PART_BYTES:
        return [message]
    view = memoryview(message)
    return [view[at : at + PART_BYTES] for at in range(0, len(view), PART_BYTES)]


def joined(frames: Sequence[zmq.Frame]) -> Buffer:
    """Return the message that came in these frames: a view if it is long and came in one."""
    if len(frames) == 1:
        frame = frames[0]
        return frame.bytes if len(frame) < PART_BYTES else frame.buffer
    return b"".join([frame.buffer for frame in frames])


PREFIX = "local:"
"""What the address of such a socket begins with, among addresses of hosts."""
# Connections that wait to be accepted: few, so that strangers who connect without end do not fill a long queue ahead of
# the user's own managers. A process that finds it full waits in ``connect``, in turn.
_BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")
# Longest wait in seconds for a place in that queue.
_CONNECT_S = 2
_TIMEVAL = struct.Struct("@ll")


def is_local(address: str) -> bool:
    """Whether an address is that of a socket of this kind."""
    return address.startswith(PREFIX)


def listen_locally() -> socket.socket:
    """Open a socket that listens under a random, unique name. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A random name: anybody may listen under an abstract name, and must not be able to take this one before.
        made.bind(f"\0flow-{secrets.token_hex(12)}")
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def address_of(listener: socket.socket) -> str:
    """Return the address under which a socket listens."""
    name = listener.getsockname()
    return PREFIX + (name.decode() if isinstance(name, bytes) else str(name)).lstrip("\0")


def connect_locally(address: str) -> socket.socket:
    """Connect to an address.

    Raises:
        OSError: no process listens there, or one of another user does (PermissionError).
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A Python timeout makes connect fail at once where the queue is full; the kernel's own waits for its turn.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_CONNECT_S, 0))
        made.connect("\0" + address.removeprefix(PREFIX))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, 0))
        if not is_own(made):
            raise PermissionError(f"who listens at {address} belongs to another user")
    except OSError:
        made.close()
        raise
    return made


def is_own(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    # The kernel's own word of who called ``connect`` or ``listen``: neither end can forge it.
    return bool(_CREDENTIALS.unpack(raw)[1] == os.geteuid())


STRANGERS_A_TURN = 4
"""Connections of other users in one turn that make a flood: then nothing is accepted for ``PAUSE_S``."""
PAUSE_S = 0.01
"""Pause in seconds during a flood. Four strangers each 10 ms cost below 1% of a core; the user's own waits for about as
long as the backlog takes, 128 connections or 0.3 s."""

MAX_MESSAGE = 1 << 31
"""Longest message in bytes that is accepted; a length beyond it shows that the stream is out of step."""
_LENGTH = struct.Struct("<I")
# Bytes of a read buffer: many small messages a call, and a buffer that is kept, since a new one of this size a call was
# four times slower.
_ROOM = 256 << 10
# Bytes up to which a message is copied out of the buffer: above, the buffer itself goes with it, as a new one costs
# page faults.
_COPIED = 64 << 10
# Bytes up to which a message is joined with its length: a copy of so few costs less than a second buffer for the
# kernel.
_JOINED = 4 << 10
# Buffers a call of ``sendmsg``, well below the kernel's limit of 1024.
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
        # A reset is an end, too: what was read before stays valid.
        except ConnectionError:
            count = 0
        self.more = count == len(room)
        if not count:
            self.closed = True
            return []
        self._filled = filled = self._filled + count
        # Just one small message is there, as in a round trip: in fewer steps.
        if _LENGTH.size < filled <= _COPIED and _LENGTH.unpack_from(self._buffer)[0] == filled - _LENGTH.size:
            self._filled = 0
            return [memoryview(bytes(self._buffer[_LENGTH.size : filled]))]
        return self._cut()

    def _cut(self) -> list[memoryview]:
        buffer, filled, at = self._buffer, self._filled, 0
        bounds: list[tuple[int, int]] = []
        need = 0
        while filled - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, at)
            # Before there is room for it: noise announces any length, and the interchange once filled gigabytes with
            # zeros.
            if size > self._longest:
                raise BadMessage(f"a message of {size} bytes: the stream is out of step")
            need = _LENGTH.size + size
            if filled - at < need:
                break
            bounds.append((at + _LENGTH.size, at + need))
            at += need
            need = 0
        # Nothing is whole, and the rest of the message fits: read on into the same buffer.
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
        # As large as the message that has begun, so that it is read in place: appending pieces would be quadratic.
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
                # ``send`` for a single buffer: ``sendmsg`` needs a list, and takes longer.
                if len(parts) == 1:
                    count = self._socket.send(parts[0])
                else:
                    count = self._socket.sendmsg(list(islice(parts, _PARTS)))
            except (BlockingIOError, InterruptedError):
                return False
            self.pending -= count
            self.sent += count
            while parts and count >= len(parts[0]):
                count -= len(parts.popleft())
            if count:
                parts[0] = memoryview(parts[0])[count:]
        return True


# Reads of one stream in a turn, so that one busy peer does not keep the others waiting.
_READS = 16
_IN, _IN_OUT = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT


class Stream:
    """A connection with its reader and its writer. One thread, or several under one lock.

    The epoll is readable while there is something to read here, or room for what waits to be sent.

    Attributes:
        ended: Whether the other side has ended and all it had sent was read, or it is out of step.
    """

    __slots__ = ("_connection", "_epoll", "_reader", "_writer", "ended")

    def __init__(self, connection: socket.socket, epoll: select.epoll, longest: int = MAX_MESSAGE) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._epoll = epoll
        self._reader = LinkReader(connection, longest)
        self._writer = LinkWriter(connection)
        self.ended = False
        epoll.register(connection.fileno(), _IN)

    def fileno(self) -> int:
        """Return the descriptor under which the epoll reports it."""
        return self._connection.fileno()

    def trust(self) -> None:
        """Accept messages of any length from now on."""
        self._reader.accept_any()

    def read(self) -> list[memoryview]:
        """Return the messages that are there."""
        messages: list[memoryview] = []
        for _ in range(_READS):
            try:
                messages += self._reader.read()
            except BadMessage:
                self.ended = True
                break
            self.ended = self._reader.closed
            if not self._reader.more:
                break
        return messages

    def write(self, *messages: Buffer) -> bool:
        """Send messages after those that wait, keep what there is no room for; False if the other side has ended.

        What that had sent before is still to be read.
        """
        waited = self._writer.pending > 0
        try:
            done = self._writer.write(messages)
        except OSError:
            # What waited can never be sent, but the other side's last messages are still to be read.
            self._writer = LinkWriter(self._connection)
            return False
        # ``epoll_ctl`` is a system call: made only where something begins or ends to wait for room.
        if waited == done:
            self._epoll.modify(self._connection.fileno(), _IN if done else _IN_OUT)
        return True

    @property
    def pending(self) -> int:
        """Bytes that wait for room."""
        return self._writer.pending

    def drop(self) -> None:
        """Close it, and take it from the epoll even if a forked child holds the connection open."""
        self._epoll.unregister(self._connection.fileno())
        self._connection.close()

    def close(self, linger_s: float = 0.0) -> None:
        """Close it, before the epoll is closed too; what was sent has so long to leave.

        Nothing is taken from the epoll: in a forked child that is the parent's.
        """
        # A peer that does not read must not hold up the end of this process.
        deadline = time.monotonic() + linger_s
        while self._writer.pending and (left := deadline - time.monotonic()) > 0:
            select.select((), (self._connection,), (), left)
            try:
                self._writer.flush()
            except OSError:
                break
        self._connection.close()
