"""TCP connection counters of the kernel: the ``INET_DIAG`` dump of ``sock_diag`` netlink. Linux only.

Ordinary users may ask for it. It covers the network namespace of the process that asks.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

# Numbers and offsets of this part are those of linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h and linux/tcp.h.
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NETLINK_SOCK_DIAG: Final = 4
_ERROR, _DONE = 2, 3
_INFO: Final = 2  # INET_DIAG_INFO, whose content is struct tcp_info
_STATES: Final = sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11))
"""Established, opening and closing; not listening, and not those in TIME_WAIT, which have no counters any more."""

_HEAD = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")
_ATTRIBUTE = struct.Struct("=HH")
_MESSAGE_SIZE: Final = 72  # struct inet_diag_msg
_COOKIE = struct.Struct("=Q")
_COOKIE_AT: Final = 44  # bytes from the begin of the message
_INODE = struct.Struct("=I")
_INODE_AT: Final = 68  # bytes from the begin of the message
_COUNTERS = struct.Struct("=QQ")
_COUNTERS_AT: Final = 120  # tcpi_bytes_acked, tcpi_bytes_received: since Linux 4.1
_BUFFER: Final = 1 << 17  # bytes; answers of the kernel are shorter, and a longer one would be cut
_PATIENCE_S: Final = 0.5  # seconds; the kernel answers in microseconds or not at all


class DumpRefused(Exception):
    """The kernel answers no dump: an old one, a sandbox, or another system."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """One connection: bytes that the other end acknowledged, and bytes received, since it was opened.

    ``cookie`` is unique among all connections of the machine since it was booted; ``inode`` is 0 once no process holds
    it any more.
    """

    cookie: int
    inode: int
    sent: int
    received: int


Wanted = Callable[[int, int], bool]
"""Predicate of cookie and inode: whether a connection is of interest."""


def request(family: int) -> bytes:
    """Return the message that asks for a dump of a family's TCP connections."""
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _STATES)
    return _HEAD.pack(_HEAD.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body


def parse(data: bytes, wanted: Wanted) -> tuple[list[Tcp], bool]:
    """Return the wanted connections of one answer, and whether it was the last.

    Raises:
        DumpRefused: it is an error, or not what was asked for.
    """
    found: list[Tcp] = []
    for kind, start, end in _messages(data):
        if kind == _DONE:
            return found, True
        if kind == _ERROR:
            raise DumpRefused("the kernel refuses it")
        if kind != _SOCK_DIAG_BY_FAMILY or end - start < _MESSAGE_SIZE:
            raise DumpRefused(f"an answer of kind {kind}, {end - start} bytes long")
        (cookie,), (inode,) = _COOKIE.unpack_from(data, start + _COOKIE_AT), _INODE.unpack_from(data, start + _INODE_AT)
        if wanted(cookie, inode):
            counters = _counters(data, start + _MESSAGE_SIZE, end)
            if counters is not None:
                found.append(Tcp(cookie, inode, *counters))
    return found, False


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, begin and end of the content of each netlink message."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, kind, *_ = _HEAD.unpack_from(data, at)
        if length < _HEAD.size or at + length > len(data):
            raise DumpRefused(f"a message of {length} bytes in {len(data) - at}")
        yield kind, at + _HEAD.size, at + length
        # Netlink aligns to four bytes.
        at += (length + 3) & ~3


def _counters(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Return bytes sent and received; None where the answer has no counters."""
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return None
        if kind == _INFO and length >= _ATTRIBUTE.size + _COUNTERS_AT + _COUNTERS.size and at + length <= end:
            sent, received = _COUNTERS.unpack_from(data, at + _ATTRIBUTE.size + _COUNTERS_AT)
            return sent, received
        at += (length + 3) & ~3
    return None


class SockDiag:
    """An open netlink socket to the kernel. Used by one thread."""

    def __init__(self) -> None:
        """Open the socket. Raises DumpRefused where that is not possible."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        except (OSError, AttributeError) as error:
            raise DumpRefused(f"no netlink socket: {error}") from error
        self._socket.settimeout(_PATIENCE_S)

    def dump(self, wanted: Wanted) -> list[Tcp]:
        """Return the wanted connections of this network namespace.

        Raises:
            DumpRefused: it does not answer as it should.
        """
        return [tcp for family in (socket.AF_INET, socket.AF_INET6) for tcp in self._family(family, wanted)]

    def _family(self, family: int, wanted: Wanted) -> list[Tcp]:
        found: list[Tcp] = []
        try:
            self._socket.send(request(family))
            last = False
            while not last:
                some, last = parse(self._socket.recv(_BUFFER), wanted)
                found += some
        except OSError as error:
            raise DumpRefused(str(error)) from error
        return found

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        self._socket.close()
