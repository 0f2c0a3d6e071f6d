"""The listening socket of an executor: kept by the client over all incarnations of the interchange."""

from __future__ import annotations

import errno
import random
import socket

from flow_core.errors import ExecutorError

_BACKLOG = 4096
_TRIES = 200
_LOOPBACK = ("127.", "::1", "localhost")


def is_loopback(address: str) -> bool:
    """Whether an address reaches this machine only."""
    return address.startswith(_LOOPBACK)


def bind_host(addresses: tuple[str, ...]) -> str:
    """Return where to listen so that all the addresses reach it."""
    if all(is_loopback(address) for address in addresses):
        return "::1" if addresses and all(":" in address for address in addresses) else "127.0.0.1"
    return "::" if any(":" in address for address in addresses) else "0.0.0.0"


def listen(host: str, ports: tuple[int, ...] | None, port_range: tuple[int, int], label: str) -> socket.socket:
    """Open the socket at one of the exact ports, or at a free one of the range.

    Raises:
        ExecutorError: none is free, or the host is not one of this machine.
    """
    exact = ports is not None
    candidates = list(ports) if ports is not None else _shuffled(port_range)
    problem: OSError | None = None
    for port in candidates[:_TRIES]:
        try:
            return _open(host, port)
        except OSError as error:
            problem = error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    where = f"ports {', '.join(map(str, candidates))}" if exact else f"ports {port_range[0]} to {port_range[1] - 1}"
    option = "worker_ports" if exact else "worker_port_range"
    reason = problem.strerror if problem else "the range is empty"
    raise ExecutorError(
        f"executor {label} cannot listen at {host}, {where}: {reason}. Free one of them, or set {option} to others"
    ) from problem


def _shuffled(port_range: tuple[int, int]) -> list[int]:
    low, high = port_range
    ports = range(low, max(low, high))
    return random.sample(ports, min(len(ports), _TRIES))


def _open(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
