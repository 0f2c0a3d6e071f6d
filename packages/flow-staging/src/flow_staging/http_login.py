"""Logins of web servers: Basic, and those that the user's netrc file knows."""

from __future__ import annotations

import base64
import contextlib
import netrc
import os
import threading
import time
from pathlib import Path
from urllib.parse import unquote_to_bytes

from flow_staging.transfer.environment import raw_variable, variable

_LOOK_S = 1.0  # a file that changes is noticed after that

_lock = threading.Lock()
_read: dict[str, tuple[tuple[int, int, int], netrc.netrc | None]] = {}
_looked: tuple[float, bytes | None, bytes | None, netrc.netrc | None] = (float("-inf"), None, None, None)


def basic(login: str) -> str:
    """Return the value of an Authorization header for ``user:password`` as a URL has it, percent signs and all."""
    user, _, password = login.partition(":")
    return "Basic " + base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()


def login_of_netrc(host: str) -> str | None:
    """Return the same for the login of a host, None if there is none: of the file ``NETRC`` names, else of the home.

    A file that cannot be read or understood has no logins. It is read again when it has changed.
    """
    global _looked
    # Bytes, since each file asks, and texts would have to be made of them.
    named, home, now = raw_variable(b"NETRC"), raw_variable(b"HOME"), time.monotonic()
    since, named_then, home_then, entries = _looked
    if now - since > _LOOK_S or named_then != named or home_then != home:
        entries = _entries(variable(b"NETRC"), variable(b"HOME"))
        _looked = now, named, home, entries
    if entries is None:
        return None
    found = entries.authenticators(host)
    if not found:
        return None
    user, account, password = found
    return "Basic " + base64.b64encode(f"{user or account}:{password}".encode()).decode()


def _entries(named: str, home: str) -> netrc.netrc | None:
    home = home or str(Path.home())
    for path in (named,) if named else (f"{home}/.netrc", f"{home}/_netrc"):
        with contextlib.suppress(OSError):
            state = os.stat(os.path.expanduser(path))
            return _parsed(os.path.expanduser(path), (state.st_mtime_ns, state.st_size, state.st_ino))
    return None


def _parsed(path: str, version: tuple[int, int, int]) -> netrc.netrc | None:
    with _lock:
        known = _read.get(path)
        if known is not None and known[0] == version:
            return known[1]
        entries = None
        with contextlib.suppress(netrc.NetrcParseError, OSError, UnicodeError):
            entries = netrc.netrc(path)
        _read[path] = (version, entries)
        return entries
