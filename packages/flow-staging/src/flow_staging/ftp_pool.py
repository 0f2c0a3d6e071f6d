"""FTP session pool: sessions kept from file to file, each for one login of one server."""

from __future__ import annotations

import contextlib
import ftplib
import os
import threading
import time

from flow_staging.ftp_connection import FtpLogin, Session
from flow_staging.ftp_tls import TlsSession
from flow_staging.transfer.handle import current
from flow_staging.transfer.retry import RetryPolicy

_IDLE_S = 60.0  # servers leave after a few minutes
_KEPT = 8  # of one login


class FtpSessions:
    """Pool of the idle sessions of this process. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[FtpLogin, list[tuple[float, Session]]] = {}

    def take(self, login: FtpLogin, retry: RetryPolicy) -> Session:
        """Return a session that answers, a kept one or a new one; raises what ftplib raises."""
        while (session := self._pop(login)) is not None:
            session.serve(current())
            if not session.left():
                with contextlib.suppress(*ftplib.all_errors):
                    assert session.sock is not None
                    session.sock.settimeout(retry.connect_timeout_s)
                    session.timeout = retry.connect_timeout_s
                    session.pace = retry
                    session.voidcmd("TYPE I")  # listings leave it to text, in which some servers tell no sizes
                    return session
            session.close()
        return _logged_in(login, retry)

    def give(self, login: FtpLogin, session: Session) -> None:
        """Take a session back that its user needs no more; one that is not fit for another file is closed."""
        # First: a stop of the transfer before must not cut the session of the next one.
        session.serve(None)
        if session.fit and session.sock is not None:
            with self._lock:
                kept = self._kept.setdefault(login, [])
                if len(kept) < _KEPT:
                    kept.append((time.monotonic(), session))
                    return
        session.close()

    def close(self) -> None:
        """Close what is kept. May be used again."""
        with self._lock:
            all_kept, self._kept = self._kept, {}
        for kept in all_kept.values():
            for _, session in kept:
                session.close()

    def _pop(self, login: FtpLogin) -> Session | None:
        """Return the session that was used last; close those that have been idle for too long."""
        old: list[tuple[float, Session]] = []
        found = None
        with self._lock:
            kept = self._kept.get(login)
            if kept:
                now = time.monotonic()
                old = [each for each in kept if now - each[0] > _IDLE_S]
                kept[:] = [each for each in kept if now - each[0] <= _IDLE_S]
                # The one used last is the likeliest to be connected still.
                found = kept.pop()[1] if kept else None
                if not kept:
                    del self._kept[login]
        for _, session in old:
            session.close()
        return found


def _logged_in(login: FtpLogin, retry: RetryPolicy) -> Session:
    """Log in, for files as they are; raises what ftplib raises."""
    session = _new(login, retry.connect_timeout_s)
    session.serve(current())
    session.pace = retry
    try:
        session.connect(login.host, login.port)
        session.login(login.user, login.password)
        session.voidcmd("TYPE I")
    except BaseException:
        session.close()
        raise
    return session


def _new(login: FtpLogin, timeout_s: float) -> Session:
    if login.scheme == "ftp":
        return Session(timeout_s)
    return TlsSession(timeout_s, login.scheme, login.ca)


sessions = FtpSessions()
"""The pool of this process; a forked child begins with an empty one."""


def _forget() -> None:
    """Leave the parent's sessions to it: two processes cannot read from one."""
    sessions.__init__()  # type: ignore[misc]  # the lock may have been held when the process was forked


os.register_at_fork(after_in_child=_forget)
