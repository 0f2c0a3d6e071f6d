"""FTP session: one login at a server, and whether it can serve another file."""

from __future__ import annotations

import contextlib
import ftplib
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from flow_staging.transfer.handle import Handle
from flow_staging.transfer.retry import DEFAULT_RETRY, Pace, SpeedLimit
from flow_staging.transfer.sockets import cut, watched

ENCODING = "latin-1"
"""Encoding of names and answers: Latin-1 has a character for every byte, so each can be read."""
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
# A server must not fill the memory: real answers have a few lines, real listings some megabytes.
_LONGEST_ANSWER = 1000  # lines
_LONGEST_LISTING = 32 << 20  # characters
_PIECE = 8192  # bytes a read; an answer fits into one, as a rule
_FIRST_PORT = 1024  # below it are the services of a machine (mail, ssh, databases of names), never the data of ftp
_LAST_PORT = 65535
_SIZE = re.compile(r"[0-9]{1,18}")  # 64 bits hold any of them
_NO_SIZE = re.compile(r"\([0-9]{19,} bytes\)")
_LEAST_WAIT_S = 0.001
_SHUTDOWN_S = 10.0  # seconds for the other side to end TLS: all bytes are there by then, so a longer wait gains nothing


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
        pace: The least speed of listings.
    """

    def __init__(self, timeout: float) -> None:
        self._lines = 0
        self._unread = b""  # of what has come over the connection of commands
        self._ends: float | None = None  # when the answer that has begun must be complete
        self._wait_s = timeout
        self.pace: SpeedLimit = DEFAULT_RETRY
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
            TimeoutError: it takes longer than one answer may, from its first byte on.
        """
        self._lines, self._ends = 0, None
        answer = super().getmultiline()
        connection = self._connection()
        if connection.gettimeout() != self._wait_s:
            connection.settimeout(self._wait_s)
        if answer.startswith("150") and _NO_SIZE.search(answer) is not None:  # ftplib would fail on it in the middle
            raise ftplib.error_proto("an answer that states what is no size")
        if answer[:1] in "45":
            answer = answer.replace("\n", " / ")
        return _CONTROLS.sub(lambda one: f"\\x{ord(one[0]):02x}", answer)

    def getline(self) -> str:
        """Read one line of an answer; raises error_proto after 1000 of them, since such an answer may never end."""
        self._lines += 1
        if self._lines > _LONGEST_ANSWER:
            raise ftplib.error_proto(f"an answer of more than {_LONGEST_ANSWER} lines")
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > self.maxline:
                raise ftplib.error_proto(f"an answer with a line of more than {self.maxline} bytes")
            self._unread += self._piece()
        line, self._unread = self._unread[:end], self._unread[end + 1 :]
        if len(line) > self.maxline:
            raise ftplib.error_proto(f"an answer with a line of more than {self.maxline} bytes")
        return line.removesuffix(b"\r").decode(ENCODING)

    def _piece(self) -> bytes:
        """Return what has come of an answer; the whole of it must come in the time that its beginning may take."""
        connection = self._connection()
        if self._ends is None:
            # The pool gives each user of a session a timeout of their own.
            self._wait_s = connection.gettimeout() or self._wait_s
            piece = connection.recv(_PIECE)
            self._ends = time.monotonic() + self._wait_s
        else:
            try:
                # 0 would mean that recv() does not wait at all, which is another error.
                connection.settimeout(max(self._ends - time.monotonic(), _LEAST_WAIT_S))
                piece = connection.recv(_PIECE)
            except TimeoutError as error:
                raise TimeoutError(f"an answer took longer than {self._wait_s:g} s from its first byte on") from error
            if time.monotonic() > self._ends:  # a server that sends without a pause lets no wait be too long
                raise TimeoutError(f"an answer took longer than {self._wait_s:g} s from its first byte on")
        if not piece:
            raise EOFError
        return piece

    def _connection(self) -> socket.socket:
        if self.sock is None:
            raise EOFError
        return self.sock

    def size(self, filename: str) -> int | None:
        """Return the size of a file, or None if the server does not say; raises error_proto for what is no size."""
        answer = self.sendcmd(f"SIZE {filename}")
        if not answer.startswith("213"):
            return None
        if _SIZE.fullmatch(said := answer[3:].strip()) is None:
            raise ftplib.error_proto(f"{said[:100]!r} is no size of a file")
        return int(said)

    def makepasv(self) -> tuple[str, int]:
        """Ask where to connect for data: at the server's own address, whatever it says.

        Raises:
            error_proto: the port is none that is for data: a server must not have us talk to other services.
        """
        try:
            host, port = super().makepasv()
        except ValueError as error:
            raise ftplib.error_proto("an answer that names no port for data") from error
        if not _FIRST_PORT <= port <= _LAST_PORT:
            raise ftplib.error_proto(f"port {port} for data: only {_FIRST_PORT} to {_LAST_PORT} are taken")
        return host, port

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Begin a transfer, over a connection that is cut when this thread's transfer is to stop."""
        data, size = super().ntransfercmd(cmd, rest)
        return watched(data), size

    def retrlines(self, cmd: str, callback: Callable[[str], object] | None = None) -> str:
        """Read a listing line by line.

        Raises:
            error_proto: it is longer than any of a directory, or has a line of more than 8192 bytes.
            TooSlow: it comes more slowly than ``pace`` says.
        """
        self.sendcmd("TYPE A")
        with self.transfercmd(cmd) as data:
            try:
                for line in self._lines_of(data):
                    if callback is not None:
                        callback(line)
            except BaseException:
                self.fit = False  # the answer behind the listing is not read
                raise
            finish(data)
        return self.voidresp()

    def _lines_of(self, data: socket.socket) -> Iterator[str]:
        pace, read, rest = Pace(self.pace), 0, b""
        while piece := data.recv(_PIECE):
            pace.add(len(piece))
            read += len(piece)
            if read > _LONGEST_LISTING:
                raise ftplib.error_proto(f"a listing of more than {_LONGEST_LISTING:,} characters")
            *lines, rest = (rest + piece).split(b"\n")
            for line in (*lines, rest):
                if len(line) > self.maxline:
                    raise ftplib.error_proto(f"a listing with a line of more than {self.maxline} bytes")
            for line in lines:
                yield line.removesuffix(b"\r").decode(ENCODING)
        if rest:
            yield rest.removesuffix(b"\r").decode(ENCODING)

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
        if self.sock is None or not self.fit or self._unread:
            return True
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            # Readable means a farewell, or the end of the connection: nothing was asked.
            return bool(poll.poll(0))
        return True


def finish(data: socket.socket) -> None:
    """End TLS after the last byte, either way: servers take what ends otherwise for cut. Never raises OSError."""
    if isinstance(data, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):
            data.settimeout(_SHUTDOWN_S)
            data.unwrap()
