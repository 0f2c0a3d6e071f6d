"""The link of a manager to the interchange: connection, registration, delivery of results.

The connection is within the machine where that is possible; else all addresses are called at once, and the first that
answers is kept. ``interchange_liveness`` decides, without I/O, when to register and when to give up;
``RegistrationSession`` carries it out.

A result that comes alone goes straight to the client as well, which saves it the wake-ups of two more processes; the
interchange receives it a little later. The client takes whichever copy comes first and drops the other.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import zmq

from flow_core.remote.faults import is_armed, point
from flow_executors.common.host import is_ip_address
from flow_executors.common.run_marker import sees_marker
from flow_executors.common.unreached import NOT_REACHED
from flow_executors.manager.interchange_liveness import (
    REGISTERED,
    ConnectionState,
    InterchangeLiveness,
    Phase,
    in_words,
)
from flow_executors.manager.interchange_transports import (
    DirectResultChannel,
    NetworkTransport,
    Transport,
    UnixTransport,
    forward_endpoint,
)
from flow_executors.manager.results import ResultBuffer
from flow_executors.manager.round_trips import RoundTripTimes
from flow_executors.wire.auth import BlockSecret
from flow_executors.wire.kinds import Received
from flow_executors.wire.messages import (
    Credit,
    Heartbeat,
    PeerInfo,
    Registration,
    Welcome,
    pack_credit,
    pack_heartbeat,
    pack_hello,
    pack_notice,
    pack_register,
    unpack_welcome,
)
from flow_executors.wire.tasks import mark_delivered, one_result
from flow_executors.wire.transport import is_local

log = logging.getLogger("flow.manager")


# Seconds that the hosts have to answer before forwards are called too, which cost the script's process its time.
_DIRECT_S = 3.0
_NOWHERE = (ConnectionState.REFUSED, ConnectionState.BROKEN, ConnectionState.DENIED)


def _look_up(names: Sequence[str], nameless: set[str]) -> None:
    for name in names:
        try:
            socket.getaddrinfo(name, None)
        except OSError:
            nameless.add(name)


class InterchangeConnection:
    """The connection. One thread; nothing blocks but ``close``.

    Args:
        addresses: Hosts, and sockets of this machine.
        port: Of the hosts.
        secret: The block's keys.
        forwards: ``unix:PATH`` or ``HOST:PORT``, which lead to the interchange by way of the connection over which this
            job was started. Called where no host answers.
    """

    def __init__(self, addresses: Sequence[str], port: int, secret: BlockSecret, forwards: Sequence[str] = ()) -> None:
        known = tuple(dict.fromkeys(addresses))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._local = tuple(address for address in known if is_local(address))
        self._hosts = tuple(address for address in known if not is_local(address))
        self._port = port
        self._secret = secret
        self._hello = b""
        self._transports: list[Transport] = []
        self._chosen: Transport | None = None
        self._hosts_called = False
        self._nameless: set[str] = set()
        self._looked_up = False
        self._forwards = tuple(forwards)
        self._forwards_called = False
        self._forwards_due = 0.0
        self._others: list[Transport] = []
        self._early: list[Received] = []
        self._short: DirectResultChannel | None = None
        self.home = ""
        """The address that answered last."""

    def seek(self, hello: bytes) -> None:
        """Begin a new search: send HELLO within the machine, or to all hosts; the first that answers is taken."""
        self._drop()
        searched = self._hosts_called
        self._hello, self._hosts_called, self._forwards_called = hello, False, False
        self._transports = [UnixTransport(address, self._secret, hello) for address in self._local]
        # Hosts are called only where the machine's own socket leads nowhere: a round trip through TCP has four wake-ups
        # of threads more.
        if not any(transport.state is ConnectionState.OPEN for transport in self._transports):
            self._call_hosts()
            # Who has searched before tries all at once: hosts had their time.
            if searched:
                self._call_forwards()

    def _call_hosts(self) -> None:
        self._hosts_called = True
        self._forwards_due = time.monotonic() + _DIRECT_S
        self._look_up_names()
        self._transports += map(self._to_host, self._hosts)

    def _look_up_names(self) -> None:
        """Find out, aside, which names mean nothing here: ZeroMQ reports a refused connection for these."""
        names = [address for address in self._hosts if not is_ip_address(address)]
        if names and not self._looked_up:
            self._looked_up = True
            threading.Thread(target=_look_up, args=(names, self._nameless), name="flow-names", daemon=True).start()

    def _call_forwards(self) -> None:
        self._forwards_called = True
        self._transports += map(self._to_forward, self._forwards)

    def _to_host(self, address: str) -> Transport:
        name = f"[{address}]" if ":" in address else address
        return NetworkTransport(self._context, address, f"tcp://{name}:{self._port}", self._secret, self._hello)

    def _to_forward(self, forward: str) -> Transport:
        return NetworkTransport(self._context, forward, forward_endpoint(forward), self._secret, self._hello)

    # -- other ways, while the connection that was chosen is silent

    @property
    def forwarded(self) -> bool:
        """Whether there are forwards: then a host that refuses may be one that has another address by now."""
        return bool(self._forwards)

    @property
    def probing(self) -> bool:
        """Whether other ways than the one that was chosen are tried."""
        return bool(self._others)

    def probe(self, hello: bytes) -> None:
        """Call all hosts and forwards anew, beside the connection that was chosen, which may come back first."""
        self.end_probe()
        self._hello = hello
        self._others = [*map(self._to_host, self._hosts), *map(self._to_forward, self._forwards)]

    def take_probe(self) -> bool:
        """Take another way if one has answered; its answer is received next."""
        for transport in self._others:
            messages = transport.receive()
            if messages:
                self._others.remove(transport)
                self.end_probe()
                self._transports.append(transport)
                self._choose(transport)
                self._early = messages
                return True
        return False

    def end_probe(self) -> None:
        """Try no other ways any more."""
        for transport in self._others:
            transport.close()
        self._others = []

    def descriptors(self) -> list[int]:
        """Return what to poll for reading; changes after ``seek``, ``receive`` and ``reach``."""
        return [descriptor for transport in self._transports for descriptor in transport.descriptors()]

    @property
    def waiting(self) -> bool:
        """Whether messages are there. To be asked before sleeping: descriptors may not signal them."""
        chosen = self._chosen
        if self._early:
            return True
        return any(transport.waiting for transport in self._transports) if chosen is None else chosen.waiting

    def receive(self) -> list[Received]:
        """Return the messages that wait."""
        if self._early:
            early, self._early = self._early, []
            return early
        if self._chosen is not None:
            return self._chosen.receive()
        for transport in self._transports:
            messages = transport.receive()
            if messages:
                self._choose(transport)
                return messages
        return []

    def _choose(self, transport: Transport) -> None:
        self._chosen = transport
        self.home = transport.address
        # Connections that were not chosen are closed, else the interchange would hold two of one manager.
        for other in self._transports:
            if other is not transport:
                other.close()
        self._transports = [transport]

    def send(self, message: Received) -> None:
        """Send a message over the connection that was chosen; dropped while there is none."""
        if self._chosen is not None:
            self._chosen.send(message)

    def open_short_way(self, address: str) -> None:
        """Connect to the client itself, where the interchange was found on this machine and named an address."""
        self._close_short_way()
        # Only if the interchange itself was found on this machine: an abstract socket of the same name elsewhere would
        # be another one.
        if address and is_local(self.home):
            try:
                self._short = DirectResultChannel(address, self._secret)
            except OSError as error:
                log.info("all results go by the interchange: %s", error)

    @property
    def short(self) -> bool:
        """Whether there is a way to the client itself."""
        return self._short is not None

    def tell(self, message: Received) -> bool:
        """Send a message to the client itself; False if there is no channel, or it did not take all of the message."""
        if self._short is None:
            return False
        told = self._short.tell(message)
        # A message that was cut off leaves the stream out of step: nothing may follow it.
        if not told:
            self._close_short_way()
        return told

    def _close_short_way(self) -> None:
        if self._short is not None:
            self._short.close()
            self._short = None

    def state(self) -> dict[str, ConnectionState]:
        """Return how far each address was reached by now; call the hosts if the machine's own way leads nowhere.

        Where there are no hosts to call, the machine's own way is tried again: the next interchange will be there.
        """
        for transport in self._transports:
            transport.look()
        if not (
            self._hosts_called
            or self._chosen
            or any(transport.state is ConnectionState.OPEN for transport in self._transports)
        ):
            if self._hosts:
                self._call_hosts()
            elif self._hello:
                self.seek(self._hello)
        if self._hosts_called and not self._forwards_called and self._chosen is None and self._forwards:
            hopeless = all(transport.state in _NOWHERE for transport in self._transports)
            if hopeless or time.monotonic() >= self._forwards_due:
                self._call_forwards()
        return {transport.address: self._state_of(transport) for transport in self._transports}

    def _state_of(self, transport: Transport) -> ConnectionState:
        nameless = transport.state is ConnectionState.REFUSED and transport.address in self._nameless
        return ConnectionState.UNRESOLVED if nameless else transport.state

    @property
    def broken(self) -> bool:
        """Whether the connection that was chosen is gone."""
        if self._chosen is None:
            return False
        self._chosen.look()
        return self._chosen.state in (ConnectionState.BROKEN, ConnectionState.DENIED)

    def _drop(self) -> None:
        self.end_probe()
        for transport in self._transports:
            transport.close()
        self._transports, self._chosen, self._early = [], None, []

    def close(self, linger_s: float = 0.0) -> None:
        """Close; wait up to ``linger_s`` for what was sent to leave."""
        self.end_probe()
        for transport in self._transports:
            transport.close(int(linger_s * 1000) if transport is self._chosen else 0)
        self._transports, self._chosen = [], None
        self._context.term()


# Seconds that results may wait for an acknowledgement without a line in the log. It comes within a quarter of a second,
# on a busy machine within seconds.
_LONG_WAIT_S = 10.0
# Seconds between looks at other ways, and after which they are called anew.
_PROBE_LOOK_S = 0.2
_PROBE_AGAIN_S = 5.0
# Seconds between two such lines, so that a bad link does not fill the run's log.
_SAY_AGAIN_S = 60.0


class RegistrationSession:
    """Where a manager stands with the interchange. One thread.

    Args:
        line: The connection.
        contact: What is known of the other side.
        offer: What the manager offers.
        outbox: Its results, with the number and the clock offset that the interchange gave.
        poller: Where the descriptors of the line are watched.
        run_id: The run.
    """

    def __init__(
        self,
        line: InterchangeConnection,
        contact: InterchangeLiveness,
        offer: Registration,
        outbox: ResultBuffer,
        poller: select.poll,
        run_id: str,
    ) -> None:
        self.offer = offer
        self._line = line
        self._contact = contact
        self._outbox = outbox
        self._poller = poller
        self._hello = pack_hello(
            PeerInfo("manager", run_id, offer.python, offer.software, os.getpid(), node=offer.node)
        )
        self._watched: list[int] = []
        self._session: str | None = None
        self._asked_ns = 0
        self.sent_pids: tuple[int, ...] = ()
        """Process ids of the workers, as the interchange was sent them; none before it has answered."""
        self._sent_credit = (offer.workers, 0)
        self._trip = RoundTripTimes()
        self._warned = False
        self._say_again_at = 0.0
        self._probe_again_at = 0.0
        self._logged_wait = False

    @property
    def registered(self) -> bool:
        """Whether tasks may come."""
        return self._contact.phase is REGISTERED

    @property
    def greeted(self) -> bool:
        """Whether the interchange has answered and is to be offered the workers, which was not done yet."""
        return self._contact.phase is Phase.GREETED and not self.sent_pids

    @property
    def threshold_s(self) -> float:
        """Seconds of silence after which the other side counts as lost."""
        return self._contact.threshold_s

    @property
    def trip_s(self) -> float:
        """Seconds that a round trip takes; 0 where it costs nothing."""
        return self._trip.seconds

    # -- finding it

    def begin(self) -> None:
        """Send HELLO to the addresses; does not wait for an answer."""
        self._line.seek(self._hello)

    def watch(self) -> None:
        """See to it that the line's descriptors are polled; they change while the interchange is sought."""
        # Once registered the descriptors stay the same: this is asked in each turn and must cost nothing.
        if self.registered and self._watched:
            return
        descriptors = self._line.descriptors()
        if descriptors != self._watched:
            self._unwatch()
            for descriptor in descriptors:
                self._poller.register(descriptor, select.POLLIN)
            self._watched = descriptors

    def _unwatch(self) -> None:
        for descriptor in self._watched:
            self._poller.unregister(descriptor)
        self._watched = []

    @property
    def watched(self) -> bool:
        """Whether the descriptors polled are those of a line that stands."""
        return bool(self._watched) and self.registered

    def lost(self, now: float) -> None:
        """The connection broke: seek again."""
        log.warning("the connection to the interchange broke: seeking it again")
        self._contact.lost(now)
        self._seek_anew()

    def _seek_anew(self) -> None:
        self._unwatch()
        self._line.seek(self._hello)

    def answered(self, who: PeerInfo) -> None:
        """Note that the interchange answered HELLO: the registration is next."""
        # Looked at once: nothing runs yet, while later a file system that hangs would hold up all tasks.
        if who.marker is not None and who.marker_digest is not None and self.offer.sees_run is None:
            self.offer = replace(self.offer, sees_run=sees_marker(who.marker, who.marker_digest))
            log.info("the run's directory %s seen here", "is" if self.offer.sees_run else "is not")
        self._contact.greeted(time.monotonic())
        self.sent_pids = ()

    def unknown(self) -> None:
        """Send HELLO again: the interchange does not know this manager."""
        self._contact.phase = Phase.SEEKING
        self._line.send(self._hello)

    # -- registering

    def register(
        self, worker_pids: tuple[int, ...], prefetch: int, held: Sequence[int], spread: tuple[int, ...] = ()
    ) -> None:
        """Send the registration: the workers, the keys of tasks that are here already, and which are on other nodes."""
        self._asked_ns = time.time_ns()
        self.sent_pids = worker_pids
        offer = replace(
            self.offer,
            prefetch=prefetch,
            time_ns=self._asked_ns,
            worker_pids=worker_pids,
            session=self._session,
            spread=spread or None,
        )
        # Measured from here, as the answer to a registration comes at once, before heartbeats do.
        self._trip.begin()
        self._trip.asked(time.monotonic())
        self._line.send(pack_register(self._outbox.manager, offer, held))

    def welcome(self, message: Received, prefetch: int, now: float) -> Welcome:
        """Take the interchange's welcome, and send it what it may not have seen."""
        welcome, outbox = unpack_welcome(message), self._outbox
        outbox.manager, self._session = welcome.manager, welcome.session
        # The error is half a round trip at most: the interchange took its time between the two of this clock.
        outbox.offset_ns = welcome.time_ns - (self._asked_ns + time.time_ns()) // 2
        self._contact.registered(welcome.heartbeat_period_s, welcome.heartbeat_threshold_s, now)
        self._sent_credit = (self.offer.workers, prefetch)
        self.answer(now)
        # Results whose acknowledgement was lost with the connection are sent again; the client drops what it knows.
        for unacknowledged in outbox.unacknowledged():
            self._line.send(unacknowledged)
        log.info("registered as manager %d at %s", welcome.manager, self._line.home)
        return welcome

    # -- staying in touch

    def heard(self, now: float) -> None:
        """Note that a message of the interchange came."""
        self._contact.heard(now)

    def deadline(self, now: float) -> float:
        """Return when to look again although nothing happens."""
        deadline = self._contact.deadline(now)
        return min(deadline, now + _PROBE_LOOK_S) if self._line.probing else deadline

    def examine(self, now: float, owes: bool = False) -> str:
        """Look whether the interchange is there, and seek it if need be; return why to give up, or nothing.

        ``owes``: there are tasks, or results that it has not taken.
        """
        contact = self._contact
        if contact.due(now):
            self._probe(now)
            if not self._logged_wait and contact.unheard(now):
                self._logged_wait = True
                tried = in_words(self._line.state())
                print(f"flow manager on {self.offer.node}: {NOT_REACHED}{tried}", file=sys.stderr, flush=True)  # noqa: T201 - the job's own stderr
            reason = contact.verdict(self._line.state(), self._line.home, now, self._line.forwarded, owes)
            if reason:
                return reason
            if contact.seek_again(now, ConnectionState.OPEN in self._line.state().values()):
                self._seek_anew()
        if contact.heartbeat_due(now):
            self.beat(())
        return ""

    def _probe(self, now: float) -> None:
        """Try other ways while the one in use is silent: the script may have another address, or none, by now."""
        line = self._line
        if line.probing and line.take_probe():
            log.warning("the interchange answers at %s, and no longer where it did", line.home)
            self._contact.lost(now)
            self._unwatch()
        elif not self._contact.silent(now):
            line.end_probe()
        elif not line.probing or now >= self._probe_again_at:
            self._probe_again_at = now + _PROBE_AGAIN_S
            line.probe(self._hello)

    def beat(self, starts: Sequence[tuple[int, int, int]]) -> None:
        """Send a heartbeat with the starts of tasks: key, time in ns UTC, worker."""
        keys, times, ranks = zip(*starts, strict=True) if starts else ((), (), ())
        beat = Heartbeat(self._outbox.manager, time.time_ns(), self._outbox.offset_ns, keys, times, ranks)
        self._trip.asked(time.monotonic())
        self._line.send(pack_heartbeat(beat))

    def answer(self, now: float) -> float:
        """The interchange has answered a heartbeat; return the round trip in seconds, 0 where it costs nothing."""
        # A round trip within the machine costs nothing worth estimating, and never exceeds the threshold.
        if is_local(self._line.home):
            return 0.0
        # A first estimate needs several round trips, and heartbeats are far apart: so the next is sent at once.
        if self._trip.answered(now):
            self.beat(())
        contact = self._contact
        if not self._warned and self._trip.too_long_for(contact.period_s, contact.threshold_s):
            self._warned = True
            self.notice(
                f"a round trip to {self.offer.node} takes {self._trip.seconds:.2g} s: a silence of "
                f"heartbeat_threshold={contact.threshold_s:g} s may be nothing but that, and its tasks count as lost. "
                "Set a longer heartbeat_threshold"
            )
        return self._trip.seconds

    def acknowledged(self, waited_s: float, now: float) -> None:
        """Note that results were acknowledged after so many seconds; a long wait that is over goes to the run's log."""
        if waited_s >= _LONG_WAIT_S and now >= self._say_again_at:
            self._say_again_at = now + _SAY_AGAIN_S
            self.notice(
                f"results waited on {self.offer.node} for {waited_s:.0f} s until the script's side took them: the "
                "network between them was away, or a process of one side did not run"
            )

    def notice(self, text: str) -> None:
        """Write a warning to this log and to that of the run."""
        log.warning("%s", text)
        if self.registered:
            self._line.send(pack_notice(self._outbox.manager, text))

    def send_credit(self, slots: int, prefetch: int) -> None:
        """Send the interchange the slots and the prefetch of now, if they have changed."""
        credit = (slots, prefetch)
        if credit != self._sent_credit:
            self._sent_credit = credit
            self._line.send(pack_credit(Credit(1, slots, prefetch, 0)))


HOLD_BACK_MS = 2
"""Milliseconds: the interchange does not wait longer than this for a result that the client knows."""

# Bytes. A longer message is not written twice: it would take more time than it saves, and a result that did not fit
# into the socket was taken for a client that does not read.
_LARGEST = 32 << 10


class ResultSender:
    """Sends what the result buffer has gathered. One thread. For a registered manager, but for ``forget``."""

    def __init__(self, line: InterchangeConnection, outbox: ResultBuffer) -> None:
        self._line = line
        self._outbox = outbox
        self.held_back = b""
        """The message of a result that the client knows and the interchange does not yet."""

    def all(self, now: float) -> None:
        """Send all results to the interchange."""
        self.rest()
        if self._outbox:
            self._line.send(self._outbox.pack(now))

    def one(self, hold_back: bool, now: float) -> None:
        """Send the only result there is, to the client first if that can be done; ``hold_back`` it from the other."""
        self.rest()
        message = self._outbox.pack(now)
        if not (self._line.short and self._fits(message) and self._line.tell(message)):
            self._line.send(message)
            return
        # From here on the client has the result and the interchange does not: tests kill the manager at this point.
        if is_armed:
            point("manager.told")
        self.held_back = mark_delivered(message)
        if not hold_back:
            self.rest()

    @staticmethod
    def _fits(message: bytes) -> bool:
        return len(message) <= _LARGEST and one_result(message) is not None

    def rest(self) -> None:
        """Send to the interchange the result that only the client has, if there is one."""
        if self.held_back:
            self._line.send(self.held_back)
            self.held_back = b""

    def forget(self) -> None:
        """Hold nothing back: the interchange is gone, and the next one is sent all that was not acknowledged."""
        self.held_back = b""
