"""Which machine a process is on, as far as files in memory go."""

from __future__ import annotations

import os
from pathlib import Path


def host_id() -> str:
    """Return what two processes share exactly if they see the same files in memory; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}.{os.getuid()}"
    except OSError:
        return ""
