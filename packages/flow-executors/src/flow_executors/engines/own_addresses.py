"""The addresses and names of this machine, by which engines tell where their workers are."""

from __future__ import annotations

import socket


def own_addresses() -> frozenset[str]:
    """Return the addresses and names of this machine."""
    import psutil

    found = {"127.0.0.1", "localhost", "::1", socket.gethostname()}
    for addresses in psutil.net_if_addrs().values():
        found.update(one.address for one in addresses if one.family in (socket.AF_INET, socket.AF_INET6))
    return frozenset(found)
