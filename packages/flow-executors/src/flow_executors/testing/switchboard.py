"""An interchange that a test steps through: one real encrypted socket, at which managers register.

It checks nothing and decides nothing: the test sees every message and sends what it likes.
"""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import zmq
from zmq.utils import z85

from flow_executors.common.run_marker import RunMarker
from flow_executors.wire import auth
from flow_executors.wire.auth import BlockSecret, KeyPair, make_pair, write_secret
from flow_executors.wire.kinds import Kind, kind_of
from flow_executors.wire.messages import (
    DEFAULT_CLASS,
    PeerInfo,
    Registration,
    Welcome,
    pack_blob,
    pack_hello,
    pack_welcome,
    unpack_register,
)
from flow_executors.wire.results import ResultBatch, unpack_results
from flow_executors.wire.tasks import TaskBatch, pack_record, pack_tasks, unpack_tasks


class Switchboard:
    """Binds at once. One thread uses it; waits end with TimeoutError."""

    def __init__(
        self,
        *,
        run_id: str = "test",
        block: str = "0",
        server: KeyPair | None = None,
        block_pair: KeyPair | None = None,
        admits: KeyPair | None = None,
        port: int = 0,
        heartbeat: tuple[float, float] = (0.2, 30.0),
        listener: socket.socket | None = None,
        marker: RunMarker | None = None,
    ) -> None:
        self.run_id = run_id
        self.marker = marker
        self.block = block
        self.heartbeat = heartbeat
        self.server = server or make_pair()
        self.block_pair = block_pair or make_pair()
        self._admits = admits or self.block_pair
        self.messages: list[bytes] = []
        """All that came and was not taken by a wait, oldest first; heartbeats are dropped."""
        self.beats: list[bytes] = []
        self.peer = b""
        self.number = 1
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._guard = threading.Thread(target=self._serve_zap, daemon=True)
        self._zap = self._context.socket(zmq.REP)
        self._zap.linger = 0
        self._zap.bind(auth.ENDPOINT)
        self._guard.start()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.curve_server = True
        self._socket.curve_secretkey = self.server.secret
        self._socket.zap_domain = auth.DOMAIN
        if listener is not None:
            self._socket.setsockopt(zmq.USE_FD, listener.fileno())
            port = listener.getsockname()[1]
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(str(self._socket.get_string(zmq.LAST_ENDPOINT)).rpartition(":")[2])

    def write_secret(self, path: Path) -> Path:
        """Write the key that a manager of the block needs."""
        write_secret(path, BlockSecret(self.block, self.server.public, self.block_pair).to_bytes())
        return path

    # -- talking

    def send(self, message: bytes) -> None:
        """Send a message to the manager that was heard last."""
        self._socket.send_multipart([self.peer, message])

    def run(
        self,
        keys: Sequence[int],
        blob: bytes,
        payloads: Sequence[bytes] | bytes = b"",
        class_id: int = DEFAULT_CLASS,
    ) -> None:
        """Send a function's blob and a batch of calls of it; ``payloads`` one a key, or the same for all."""
        digest = blake2b(blob, digest_size=16).digest()
        for piece in pack_blob(digest, blob):
            self.send(piece)
        each = [payloads] * len(keys) if isinstance(payloads, bytes) else list(payloads)
        records = [pack_record(digest, key, class_id, payload) for key, payload in zip(keys, each, strict=True)]
        self.send(pack_tasks(class_id, [digest], keys, [len(record) for record in records], b"".join(records)))

    def welcome(self, timeout_s: float = 20.0) -> tuple[int, Registration, tuple[int, ...]]:
        """Answer a manager's hello and registration; return the latter."""
        self.next(Kind.HELLO, timeout_s)
        marker = (self.marker.path, self.marker.digest) if self.marker is not None else (None, None)
        self.send(pack_hello(PeerInfo("interchange", self.run_id, platform.python_version(), "test", 0, *marker)))
        number, offer, held = unpack_register(self.next(Kind.REGISTER, timeout_s))
        self.number = number or self.number
        self.send(pack_welcome(Welcome(self.number, time.time_ns(), *self.heartbeat)))
        return number, offer, held

    def next(self, kind: Kind, timeout_s: float = 20.0) -> bytes:
        """Return the next message of a kind, taking it out."""
        return self.wait_for(lambda message: kind_of(message) == kind, kind.name, timeout_s)

    def wait_for(self, wanted: Callable[[bytes], bool], what: str, timeout_s: float = 20.0) -> bytes:
        """Return the first message that is wanted, taking it out."""
        deadline = time.monotonic() + timeout_s
        while True:
            for index, message in enumerate(self.messages):
                if wanted(message):
                    return self.messages.pop(index)
            self._read_reports(deadline, what)

    def results(self, count: int, timeout_s: float = 20.0) -> dict[int, tuple[int, bytes]]:
        """Return key -> (status, payload) of so many outcomes."""
        found: dict[int, tuple[int, bytes]] = {}
        while len(found) < count:
            batch: ResultBatch = unpack_results(self.next(Kind.RESULTS, timeout_s))
            for key, status, payload in zip(batch.keys, batch.statuses, batch.payloads(), strict=True):
                found[key] = status, bytes(payload)
        return found

    def returned(self, timeout_s: float = 20.0) -> TaskBatch:
        """Return the next batch of tasks given back."""
        return unpack_tasks(self.next(Kind.RETURNED, timeout_s))

    def _read_reports(self, deadline: float, what: str) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not self._socket.poll(int(left * 1000) + 1):
            raise TimeoutError(f"no {what} came; there are {[chr(m[0]) for m in self.messages]}")
        self.peer, *parts = self._socket.recv_multipart()
        message = b"".join(parts)
        (self.beats if kind_of(message) == Kind.HEARTBEAT else self.messages).append(message)

    def _serve_zap(self) -> None:
        admitted = {z85.decode(self._admits.public): self.block}
        try:
            while True:
                reply = auth.answer(self._zap.recv_multipart(), admitted)
                if reply is not None:
                    self._zap.send_multipart(reply)
        except zmq.ZMQError:
            self._zap.close()

    def close(self) -> None:
        """Close the socket; managers see their connection break."""
        self._socket.close()
        self._context.term()
        self._guard.join()
