"""An ftp server (pyftpdlib) in a thread, which can break transfers."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it still uses asyncore
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import DTPHandler, FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer


class FtpServer:
    """Anonymous may read and write; ``me`` with the password ``p@ss`` too. ``cuts`` holds bytes after which the
    next data connections break, both ways."""

    def __init__(
        self,
        root: Path,
        *,
        hashes: bool = False,
        dates: bool = True,
        lie: bool = False,
        encoding: str = "utf-8",
        host: str = "127.0.0.1",
    ) -> None:
        self.root = root
        self.cuts: deque[int] = deque()
        self.commands: list[str] = []
        self.stopped_politely = True
        self.watch: Callable[[int], None] = lambda passed: None  # told how many bytes a data connection has passed
        self._ioloop = IOLoop()
        self._server = FTPServer((host, 0), self._handler(hashes, dates, lie), ioloop=self._ioloop)
        self._server.handler.encoding = encoding
        self._closing, self._leaving, self._left = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def url(self, path: str, login: str = "") -> str:
        host, port = self._server.address[:2]
        return f"ftp://{login}{host}:{port}{path}"

    def close(self) -> None:
        self._closing.set()
        self._thread.join(10)

    def leave(self) -> None:
        """End all sessions, as a server does with those that say nothing for long."""
        self._left.clear()
        self._leaving.set()
        assert self._left.wait(20)

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._ioloop.loop(timeout=0.02, blocking=False)
            if self._leaving.is_set():
                for handler in list(self._ioloop.socket_map.values()):
                    if isinstance(handler, FTPHandler):
                        handler.respond("421 Nothing was said for long.")
                        handler.close_when_done()
                self._ioloop.loop(timeout=0.02, blocking=False)
                self._leaving.clear()
                self._left.set()
        self._server.close_all()

    def _handler(self, hashes: bool, dates: bool, lie: bool) -> type[FTPHandler]:
        me = self

        class Data(DTPHandler):  # type: ignore[misc]  # pyftpdlib is not typed
            cut: int | None = None

            def __init__(self, sock: object, cmd_channel: FTPHandler) -> None:
                self.cut = me.cuts.popleft() if me.cuts else None
                self.passed = 0
                super().__init__(sock, cmd_channel)

            def send(self, data: bytes) -> int:
                sent: int = super().send(data[: self._room(len(data))])
                self._passed(sent)
                return sent

            def recv(self, size: int) -> bytes:
                data: bytes = super().recv(self._room(size))
                self._passed(len(data))
                return data

            def _room(self, size: int) -> int:
                return size if self.cut is None else max(1, min(size, self.cut - self.passed))

            def _passed(self, size: int) -> None:
                self.passed += size
                me.watch(self.passed)
                if self.cut is not None and self.passed >= self.cut:
                    if me.stopped_politely:
                        self.cmd_channel.respond("426 Connection closed; transfer aborted.")
                    else:
                        self.cmd_channel.close()
                    self.close()

        class Control(FTPHandler):  # type: ignore[misc]  # pyftpdlib is not typed
            dtp_handler = Data
            authorizer = DummyAuthorizer()
            use_sendfile = False
            banner = "ready"
            auth_failed_timeout = 0

            def __init__(self, *args: object, **kwargs: object) -> None:
                super().__init__(*args, **kwargs)
                self._extra_feats = ["XSHA256"] if hashes else []

            def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
                me.commands.append(f"{cmd} {arg}".strip())
                super().pre_process_command(line, cmd, arg)

            def log(self, *args: object, **kwargs: object) -> None:
                pass

            logline = log_exception = log_cmd = log_transfer = log

        Control.proto_cmds = dict(FTPHandler.proto_cmds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # writing by anonymous is what we want here
            Control.authorizer.add_anonymous(str(self.root), perm="elradfmwMT", msg_login="hi")
        Control.authorizer.add_user("me", "p@ss", str(self.root), perm="elradfmwMT")
        Control.authorizer.add_user("reader", "r", str(self.root), perm="elr")
        if hashes:
            Control.proto_cmds["XSHA256"] = {"perm": "r", "auth": True, "arg": True, "help": "digest"}

            def ftp_xsha256(handler: FTPHandler, path: str) -> None:
                body = b"another" if lie else Path(path).read_bytes()
                handler.respond(f"250 {hashlib.sha256(body).hexdigest()}")

            Control.ftp_XSHA256 = ftp_xsha256
        if not dates:
            del Control.proto_cmds["MDTM"]
        return Control


class SilentFtpServer:
    """Falls silent in the midst of each transfer. ``hanging`` is released when it does, ``left`` when the other side
    has ended the data connection; ``deleted`` holds the names that it was told to delete."""

    SIZE = 100_000_000

    def __init__(self) -> None:
        self.hanging = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self.deleted: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                control, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(control,), daemon=True).start()

    def _talk(self, control: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            control,
            control.makefile("rb") as lines,
            socket.create_server(("127.0.0.1", 0)) as passive,
        ):
            high, low = divmod(passive.getsockname()[1], 256)
            said = {
                b"USER": "331 password",
                b"PASS": "230 in",
                b"TYPE": "200 binary",
                b"NOOP": "200 here",
                b"SIZE": f"213 {self.SIZE}",
                b"MDTM": "213 20230102030405",
                b"PASV": f"227 (127,0,0,1,{high},{low})",
                b"DELE": "250 deleted",
            }
            control.sendall(b"220 here\r\n")
            for line in lines:
                command, _, name = line.strip().partition(b" ")
                if command == b"DELE":
                    self.deleted.append(name.decode())
                if command in (b"RETR", b"STOR"):
                    self._move(control, passive, command)
                else:
                    control.sendall(f"{said.get(command, '502 unknown')}\r\n".encode())

    def _move(self, control: socket.socket, passive: socket.socket, command: bytes) -> None:
        data, _ = passive.accept()
        with data:
            control.sendall(b"150 coming\r\n")
            if command == b"RETR":
                data.sendall(b"ten bytes\n")
            self.hanging.release()
            if command == b"RETR":
                data.recv(1)
            else:
                control.recv(1)  # the data connection is full, and nobody reads it
            self.left.release()
