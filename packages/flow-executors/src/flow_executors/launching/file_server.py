"""Gives archives to nodes that no channel brings them to: over TCP, to those that know a block's key, encrypted.

Nodes ask under a bare Python, without ZeroMQ: so this is another port than that of the interchange. Who asks shows
that it knows the secret key of its block, by an HMAC over random numbers of both sides; the answer shows the same. What
follows is combined with a SHAKE-256 stream of that key and these numbers, and its digest was in the answer. The other
side is ``node_loader.fetch``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flow_executors.errors import ExecutorError
from flow_executors.launching.node_bundle import Archive, Platform
from flow_executors.wire.auth import KEY_SIZE, KeyPair

_GREETING = b"FLOWFILE"
_NONCE = 16  # bytes that each side adds, so that no signature is of use a second time
_PIECE = 1 << 16  # bytes read at a time; only the magnitude matters
_SIGNATURE = 32  # bytes of SHA-256
_LONGEST = 4096  # bytes of a question
_ASKING_S = 15.0  # seconds that a question may take as a whole: it has 200 bytes
_PATIENCE_S = 60.0  # seconds that a node may take nothing of the answer
_PAUSE_S = 0.05  # seconds until a connection is taken again where that failed, as without free descriptors
_AT_ONCE = 16  # connections that are served at a time; more wait
_ASKED = struct.Struct("<H")
_HEAD = struct.Struct("<I")
_COUNT = struct.Struct("<Q")


class FileServer:
    """Serves at one listening socket until it is closed. Any thread.

    Args:
        listener: A TCP socket that listens; it is closed with this.
        archive_for: Returns the archive of a name for a platform, called by threads of this; raises ExecutorError.
        logger: Where refusals are told.
    """

    def __init__(
        self, listener: socket.socket, archive_for: Callable[[str, Platform], Archive], logger: logging.Logger
    ) -> None:
        self._listener = listener
        self._archive_for = archive_for
        self._logger = logger
        self._keys: dict[bytes, bytes] = {}
        self._closed = False
        self._pool = ThreadPoolExecutor(_AT_ONCE, "flow-files")
        listener.settimeout(0.5)
        self._thread = threading.Thread(target=self._accept, name="flow-file-server", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Port that it listens at."""
        return int(self._listener.getsockname()[1])

    def admit(self, pair: KeyPair) -> None:
        """Serve the nodes of a block from now on."""
        self._keys[pair.public] = key_of(pair.secret)

    def revoke(self, public: bytes) -> None:
        """Serve the nodes of a block no more."""
        self._keys.pop(public, None)

    def close(self) -> None:
        """Close the socket; what is being sent breaks off. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._thread.join()
        self._listener.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # no descriptor to be had, or the one who called went away
                time.sleep(_PAUSE_S)
                continue
            try:
                self._pool.submit(self._serve, connection)
            except RuntimeError:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._answer(connection)
            except OSError as error:
                self._logger.info("a node that asked for Flow went away: %s", error)
            except Exception:
                self._logger.exception("a node that asked for Flow got no answer")

    def _answer(self, connection: socket.socket) -> None:
        mine = secrets.token_bytes(_NONCE)
        # Whoever connects may ask: without a key they must not hold a thread for long.
        connection.settimeout(_ASKING_S)
        until = time.monotonic() + _ASKING_S
        connection.sendall(_GREETING + mine)
        public = _received(connection, KEY_SIZE, until)
        nonces = mine + _received(connection, _NONCE, until)
        (size,) = _ASKED.unpack(_received(connection, _ASKED.size, until))
        if size > _LONGEST:
            return
        asked = _received(connection, size, until)
        key = self._keys.get(public)
        sign = hmac.digest(key or b"nobody", b"c" + nonces + asked, "sha256")
        if not hmac.compare_digest(sign, _received(connection, _SIGNATURE, until)) or key is None:
            self._logger.info("someone without a key of this run asked for Flow, and got nothing")
            return
        connection.settimeout(_PATIENCE_S)
        question = json.loads(asked)
        python, machine, libc, version = question["platform"]
        try:
            archive = self._archive_for(question["want"], Platform(python, machine, libc, (version[0], version[1])))
        except ExecutorError as error:
            self._logger.warning("a node got no Flow: %s", error)
            head = json.dumps({"error": str(error)}).encode()
            connection.sendall(_HEAD.pack(len(head)) + head + hmac.digest(key, b"s" + nonces + head, "sha256"))
            return
        with archive.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = json.dumps({"sha256": archive.sha256, "size": size}).encode()
            connection.sendall(_HEAD.pack(len(head)) + head + hmac.digest(key, b"s" + nonces + head, "sha256"))
            count = 0
            while piece := file.read(_PIECE):
                connection.sendall(_combined(piece, key + nonces + _COUNT.pack(count)))
                count += 1


def key_of(secret: bytes) -> bytes:
    """Return the key of this protocol that follows from the secret key of a block."""
    return hashlib.sha256(b"flow-files" + secret).digest()


def _combined(piece: bytes, seed: bytes) -> bytes:
    stream = hashlib.shake_256(seed).digest(len(piece))
    return (int.from_bytes(piece, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(piece), "little")


def _received(connection: socket.socket, size: int, until: float) -> bytes:
    parts = []
    while size:
        part = connection.recv(size)
        if not part or time.monotonic() > until:
            raise ConnectionError("it ended before its question did")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
