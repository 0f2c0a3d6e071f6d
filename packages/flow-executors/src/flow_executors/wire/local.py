"""The way between processes of one user on one machine: a stream socket without a file, kept to that user.

Its name is abstract (Linux): nothing of it is left when the processes are gone, and it reaches as far as the network
namespace does. Anybody on the machine could connect to such a name, so both sides ask the kernel who the other one is,
and have nothing to do with other users. So it needs no encryption, as a socket in a directory of mode 0700 needs none.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct

PREFIX = "local:"
"""What the address of such a socket begins with, among addresses of hosts."""
_BACKLOG = 4096
_CREDENTIALS = struct.Struct("3i")
_CONNECT_S = 1.0


def is_local(address: str) -> bool:
    """Whether an address is that of a socket of this kind."""
    return address.startswith(PREFIX)


def listen_locally() -> socket.socket:
    """Open a socket that listens under a name nobody else has. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
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
        OSError: nobody listens there, or somebody else's process does (PermissionError).
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(_CONNECT_S)
        made.connect("\0" + address.removeprefix(PREFIX))
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
    return bool(_CREDENTIALS.unpack(raw)[1] == os.geteuid())
