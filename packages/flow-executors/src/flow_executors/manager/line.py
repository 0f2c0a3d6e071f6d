"""The line to the interchange: one connection, found among several addresses.

Within the machine if that is possible; else all hosts are called at once. No decision is made here but which address
answered; what to do about a broken line is the shell's matter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import zmq

from flow_executors.manager.contact import Reach
from flow_executors.manager.ways import LocalWay, NetworkWay, ShortWay, Way
from flow_executors.wire.keys import BlockSecret
from flow_executors.wire.kinds import Received
from flow_executors.wire.local import is_local

log = logging.getLogger("flow.manager")


class Line:
    """The connection. One thread; nothing blocks but ``close``."""

    def __init__(self, addresses: Sequence[str], port: int, secret: BlockSecret) -> None:
        known = tuple(dict.fromkeys(addresses))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._local = tuple(address for address in known if is_local(address))
        self._hosts = tuple(address for address in known if not is_local(address))
        self._port = port
        self._secret = secret
        self._hello = b""
        self._ways: list[Way] = []
        self._chosen: Way | None = None
        self._hosts_called = False
        self._short: ShortWay | None = None
        self.home = ""
        """The address that answered last."""

    def seek(self, hello: bytes) -> None:
        """Begin anew: say hello within the machine, or at all hosts; the first that answers is taken."""
        self._drop()
        self._hello, self._hosts_called = hello, False
        self._ways = [LocalWay(address, self._secret, hello) for address in self._local]
        if not any(way.reach is Reach.OPEN for way in self._ways):
            self._call_hosts()

    def _call_hosts(self) -> None:
        self._hosts_called = True
        for address in self._hosts:
            self._ways.append(NetworkWay(self._context, address, self._port, self._secret, self._hello))

    def descriptors(self) -> list[int]:
        """Return what to poll for reading; changes after ``seek``, ``receive`` and ``reach``."""
        return [descriptor for way in self._ways for descriptor in way.descriptors()]

    @property
    def waiting(self) -> bool:
        """Whether messages are there. To be asked before sleeping: descriptors may not tell."""
        chosen = self._chosen
        return any(way.waiting for way in self._ways) if chosen is None else chosen.waiting

    def receive(self) -> list[Received]:
        """Return the messages that wait."""
        if self._chosen is not None:
            return self._chosen.receive()
        for way in self._ways:
            messages = way.receive()
            if messages:
                self._choose(way)
                return messages
        return []

    def _choose(self, way: Way) -> None:
        self._chosen = way
        self.home = way.address
        for other in self._ways:
            if other is not way:
                other.close()
        self._ways = [way]

    def send(self, message: Received) -> None:
        """Send a message to whoever answered; dropped while nobody has."""
        if self._chosen is not None:
            self._chosen.send(message)

    def open_short_way(self, address: str) -> None:
        """Connect to the client itself, where the interchange was found on this machine and named an address."""
        self._close_short_way()
        if address and is_local(self.home):
            try:
                self._short = ShortWay(address, self._secret)
            except OSError as error:
                log.info("all results go by the interchange: %s", error)

    @property
    def short(self) -> bool:
        """Whether there is a way to the client itself."""
        return self._short is not None

    def tell(self, message: Received) -> bool:
        """Tell the client itself; False if that cannot be done, or it may not have heard all."""
        if self._short is None:
            return False
        told = self._short.tell(message)
        if not told:
            self._close_short_way()
        return told

    def _close_short_way(self) -> None:
        if self._short is not None:
            self._short.close()
            self._short = None

    def reach(self) -> dict[str, Reach]:
        """Return how far each address was reached by now; call the hosts if the machine's own way leads nowhere."""
        for way in self._ways:
            way.look()
        if not (self._hosts_called or self._chosen or any(way.reach is Reach.OPEN for way in self._ways)):
            self._call_hosts()
        return {way.address: way.reach for way in self._ways}

    @property
    def broken(self) -> bool:
        """Whether the connection that was chosen is gone."""
        if self._chosen is None:
            return False
        self._chosen.look()
        return self._chosen.reach in (Reach.BROKEN, Reach.DENIED)

    def _drop(self) -> None:
        for way in self._ways:
            way.close()
        self._ways, self._chosen = [], None

    def close(self, linger_s: float = 0.0) -> None:
        """Close; wait up to ``linger_s`` for what was sent to leave."""
        for way in self._ways:
            way.close(int(linger_s * 1000) if way is self._chosen else 0)
        self._ways, self._chosen = [], None
        self._context.term()
