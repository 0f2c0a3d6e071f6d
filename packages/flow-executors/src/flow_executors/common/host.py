"""Hosts: the identity of this one, and what is an address of one."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path


def host_id() -> str:
    """Return what two processes share exactly if they see the same files in memory; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # A boot of the machine, a namespace of processes and a user: /proc/<pid>/fd needs all three.
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}.{os.getuid()}"
    except OSError:
        return ""


def is_ip_address(host: str) -> bool:
    """Whether a host is given by its number, not by a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
