"""The sockets of an in-process interchange: those of an interchange, read in as few steps as can be."""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from flow_executors.interchange.sockets import InterchangeSockets
from flow_executors.wire.kinds import GREETINGS, Buffer
from flow_executors.wire.transport import joined

# Bytes up to which a message is copied into ZeroMQ; above, a copy takes longer than keeping track of the original.
_COPIED = 64 << 10
# As plain numbers: flags of ZeroMQ are enums, with which computing takes half as long as sending.
_NOW, _NOW_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)


class DirectSockets(InterchangeSockets):
    """Sockets that are read and written without lists of parts."""

    def receive(self, limit: int) -> Iterator[tuple[bytes, str, Buffer]]:
        """Yield up to so many messages with their peer and, for greetings, the block of the peer's key."""
        router = self.router
        for _ in range(limit):
            if not self._readable():
                return
            peer, body = router.recv(_NOW), router.recv(_NOW, copy=False)
            frames = [body]
            while body.more:
                body = router.recv(_NOW, copy=False)
                frames.append(body)
            message = joined(frames)
            yield peer, self._greeted(peer, body) if len(message) and message[0] in GREETINGS else "", message

    def _send(self, peer: bytes, message: Buffer) -> bool:
        """Send over the network."""
        self._used = True
        try:
            self.router.send(peer, _NOW_MORE)
            self.router.send(message, _NOW, copy=len(message) < _COPIED)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True
