"""Check for tests whether network traffic can be measured on this machine."""

from __future__ import annotations

from flow_monitor.sampling.sock_diag import DumpRefused, SockDiag


def kernel_tells_traffic() -> bool:
    """Return whether this machine answers dumps."""
    try:
        kernel = SockDiag()
    except DumpRefused:
        return False
    try:
        kernel.dump(lambda _cookie, _inode: False)
    except DumpRefused:
        return False
    finally:
        kernel.close()
    return True
