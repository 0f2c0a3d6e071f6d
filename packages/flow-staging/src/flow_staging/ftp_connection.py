"""FTP session: one login at a server, and whether it can serve another file."""

from __future__ import annotations

import contextlib
import ftplib
import re
import select
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flow_staging.transfer.handle import Handle
from flow_staging.transfer.sockets import cut

ENCODING = "latin-1"
"""Encoding of names and answers: Latin-1 has a character for every byte, so each can be read."""
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
# A server must not fill the memory: real answers have a few lines, real listings some megabytes.
_LONGEST_ANSWER = 1000  # lines
_LONGEST_LISTING = 32 << 20  # characters


@dataclass(frozen=True, slots=True)
class FtpLogin:
    """Server and login of a session: sessions are kept and shared by these.

    Attributes:
        host: Server.
        port: Its port.
        user: Login.
        password: Password.
        scheme: ``ftp``, ``ftps`` or ``ftpes``.
        ca: Certificates to trust beside the others, as PEM text.
    """

    host: str
    port: int
    user: str
    password: str
    scheme: str = "ftp"
    ca: str | None = None


class Session(ftplib.FTP):
    """A session that knows whether it can serve another file. Used by one thread at a time.

    Attributes:
        fit: Every answer was read that was due, and the directory is that of the login.
        features: What the server said to FEAT, once it was asked.
    """

    def __init__(self, timeout: float) -> None:
        self._lines = 0
        super().__init__(timeout=timeout, encoding=ENCODING)
        self.fit = True
        self.features: str | None = None
        self._serves: Handle | None = None

    def getresp(self) -> str:
        """Read an answer; whatever else than a refusal comes, the session is not fit any more."""
        if self._serves is not None and self._serves.is_set():  # perhaps stopped before there was a socket to be cut
            self._cut(self._serves)
        try:
            return super().getresp()
        except (ftplib.error_perm, ftplib.error_temp) as error:
            if str(error).startswith("421"):  # it leaves
                self.fit = False
            raise
        except BaseException:
            self.fit = False
            raise

    def getmultiline(self) -> str:
        """Read an answer of one or more lines; a refusal becomes one line without control characters.

        Raises:
            error_proto: it does not end.
        """
        self._lines = 0
        answer = super().getmultiline()
        if answer[:1] in "45":
            answer = answer.replace("\n", " / ")
        return _CONTROLS.sub(lambda one: f"\\x{ord(one[0]):02x}", answer)

    def getline(self) -> str:
        """Read one line of an answer; raises error_proto after 1000 of them, since such an answer may never end."""
        self._lines += 1
        if self._lines > _LONGEST_ANSWER:
            raise ftplib.error_proto(f"an answer of more than {_LONGEST_ANSWER} lines")
        return super().getline()

    def retrlines(self, cmd: str, callback: Callable[[str], object] | None = None) -> str:
        """Read a listing line by line.

        Raises:
            error_proto: it is longer than any of a directory.
        """
        read = 0

        def take(line: str) -> None:
            """Pass on one line, and count what has been read."""
            nonlocal read
            read += len(line) + 2
            if read > _LONGEST_LISTING:
                self.fit = False
                raise ftplib.error_proto(f"a listing of more than {_LONGEST_LISTING:,} characters")
            if callback is not None:
                callback(line)

        return super().retrlines(cmd, take)

    def serve(self, handle: Handle | None) -> None:
        """Be cut with a transfer, and no longer with the one before."""
        self._serves = handle
        if handle is not None:
            handle.cut_by(partial(self._cut, handle))

    def _cut(self, handle: Handle) -> None:
        if self._serves is handle:
            self.fit = False
            cut(self.sock)

    def left(self) -> bool:
        """Return whether the session has ended, or the server has sent something unasked (a farewell, as a rule)."""
        if self.sock is None or not self.fit:
            return True
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            # Readable means a farewell, or the end of the connection: nothing was asked.
            return bool(poll.poll(0))
        return True
