"""A TCP proxy on loopback that breaks connections after some bytes."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque


class CuttingProxy:
    """Passes bytes on to a port. ``cuts`` holds, for the next big answers or requests, the bytes after which the
    connection is reset; a connection with fewer bytes than ``ignore`` does not take one. ``holds`` holds numbers of
    bytes after which it falls silent: ``holding`` is released then, and ``left`` when the other side ends it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.cuts: deque[int] = deque()
        self.cut = 0
        self.holds: deque[int] = deque()
        self.holding = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self.target), 10)
            except OSError:
                return
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            done: list[int] = []
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target, near, done), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, near: socket.socket, done: list[int]) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if self._cuts(passed):
                    break
                if self._holds(passed):
                    self.holding.release()
                    poll = select.poll()
                    poll.register(near, select.POLLRDHUP)
                    if poll.poll(20_000):
                        self.left.release()
                    break
                target.sendall(data)
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with self._lock:
            done.append(1)
            if len(done) == 2:
                for end in (source, target):
                    self._open.discard(end)
                    end.close()

    def _cuts(self, passed: int) -> bool:
        with self._lock:
            if not self.cuts or passed < self.cuts[0]:
                return False
            self.cuts.popleft()
            self.cut += 1
            return True

    def _holds(self, passed: int) -> bool:
        with self._lock:
            if not self.holds or passed < self.holds[0]:
                return False
            self.holds.popleft()
            return True
