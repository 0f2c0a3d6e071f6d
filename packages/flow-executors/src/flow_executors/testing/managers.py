"""Simulated managers: thousands of real encrypted connections from a few processes, without workers behind them.

Each speaks the real protocol: it says hello, registers, beats, and answers every task at once with None. So an
interchange can be seen under the load of a large machine on a small one.

    fleet = Fleet(run_id=..., port=..., count=2048, ...)
    with FleetProcess(fleet) as process:
        process.wait_registered(30.0)
"""

from __future__ import annotations

import os
import platform
import resource
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import zmq

from flow_core.errors import ExecutorError
from flow_executors.wire.kinds import Kind, kind_of
from flow_executors.wire.messages import (
    DrainMode,
    Heartbeat,
    PeerInfo,
    Registration,
    pack_exit,
    pack_heartbeat,
    pack_hello,
    pack_register,
    unpack_drain,
    unpack_welcome,
)
from flow_executors.wire.results import pack_results
from flow_executors.wire.schema import decode, encode
from flow_executors.wire.tasks import pack_tasks, unpack_tasks
from flow_executors.wire.transport import split

# Descriptors a manager: a socket's event, its connection, and room.
_DESCRIPTORS_EACH = 3
# Descriptors beyond those: of Python, of pipes, of ZeroMQ itself.
_SPARE = 256
# Connections of one process that may be on their way at once: nodes of a real machine do not start in one instant.
_UNANSWERED = 256


@dataclass(frozen=True, slots=True)
class Fleet:
    """Settings of one process of simulated managers; keys are Z85 text.

    Attributes:
        run_id: The run that they belong to.
        port: Port of the interchange on this machine.
        server_public: Public key of the interchange.
        public: Public key of the block.
        secret: Secret key of the block.
        block: The block.
        count: Managers.
        first: Number of the first; names follow from it.
        workers: Slots of each.
        prefetch: Tasks that each takes beyond them.
        singly: Send each result in a message of its own: the worst that can happen to an interchange.
    """

    run_id: str
    port: int
    server_public: str
    public: str
    secret: str
    block: str
    count: int
    first: int = 0
    workers: int = 32
    prefetch: int = 32
    singly: bool = False


def raise_descriptor_limit(needed: int) -> None:
    """Allow this process so many descriptors, as far as the hard limit goes.

    Raises:
        ExecutorError: it does not go that far; the message says which limit to raise.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ExecutorError(
            f"{needed} file descriptors are needed, the hard limit is {hard}: raise it (ulimit -Hn, LimitNOFILE, or "
            "limits.conf), or use more processes"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else hard, hard))


class _Member:
    """One manager: a connection and its numbers."""

    __slots__ = ("name", "number", "sequence", "socket")

    def __init__(self, socket: zmq.Socket[bytes], name: str) -> None:
        self.socket = socket
        self.name = name
        self.number = 0
        self.sequence = 0


class Members:
    """All managers of this process. One thread."""

    def __init__(self, fleet: Fleet, registered: Callable[[int], None]) -> None:
        """``registered`` is told how many are, after each."""
        raise_descriptor_limit(fleet.count * _DESCRIPTORS_EACH + _SPARE)
        self._fleet = fleet
        self._registered = registered
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, fleet.count + _SPARE)
        self._epoll = select.epoll()
        self._by_fd: dict[int, _Member] = {}
        self._made = 0
        self._greeted = 0
        self._period_s = 30.0
        self._beats: deque[tuple[float, _Member]] = deque()  # all periods are equal: the first is due first
        self._hello = pack_hello(PeerInfo("manager", fleet.run_id, platform.python_version(), "simulated"))

    def run(self, until_readable: int) -> None:
        """Serve until all were sent home, or the given descriptor (a pipe's end) says so."""
        self._epoll.register(until_readable, select.EPOLLIN)
        while self._made < self._fleet.count or self._by_fd:
            self._connect()
            timeout = max(0.0, self._beats[0][0] - time.monotonic()) if self._beats else 1.0
            for descriptor, _ in self._epoll.poll(timeout):
                if descriptor == until_readable:
                    return
                self._serve(descriptor)
            self._beat()

    def close(self) -> None:
        """Close all connections at once, without EXIT, as processes that are killed."""
        for member in self._by_fd.values():
            member.socket.close(0)
        self._by_fd.clear()
        self._context.term()
        self._epoll.close()

    def _connect(self) -> None:
        fleet = self._fleet
        while self._made < fleet.count and self._made - self._greeted < _UNANSWERED:
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.sndhwm = socket.rcvhwm = 0
            socket.curve_serverkey = fleet.server_public.encode()
            socket.curve_publickey = fleet.public.encode()
            socket.curve_secretkey = fleet.secret.encode()
            socket.connect(f"tcp://127.0.0.1:{fleet.port}")
            socket.send(self._hello)
            descriptor = int(socket.get(zmq.FD))
            self._by_fd[descriptor] = _Member(socket, f"{fleet.block}.simulated.{fleet.first + self._made}")
            self._epoll.register(descriptor, select.EPOLLIN)
            self._made += 1
            self._serve(descriptor)  # its descriptor says nothing before its events were looked at once

    def _serve(self, descriptor: int) -> None:
        """Take messages until there are none: the descriptor only tells of changes."""
        member = self._by_fd.get(descriptor)
        if member is None:
            return
        socket = member.socket
        while int(socket.get(zmq.EVENTS)) & zmq.POLLIN:
            if not self._take(member, socket.recv_multipart(zmq.NOBLOCK)[-1]):
                self._epoll.unregister(descriptor)
                del self._by_fd[descriptor]
                socket.close(0)
                return

    def _take(self, member: _Member, message: bytes) -> bool:
        """Answer one message; False to leave."""
        kind = kind_of(message)
        if kind == Kind.TASKS:
            self._answer(member, message)
        elif kind == Kind.HELLO:
            self._greeted += 1
            # The interchange takes no frame as long as the offer of a large block.
            member.socket.send_multipart(split(pack_register(member.number, self._offer(member), ())))
        elif kind == Kind.WELCOME:
            self._welcomed(member, message)
        elif kind == Kind.AGAIN:
            member.socket.send(self._hello)
        elif kind == Kind.RECALL:
            member.socket.send(pack_tasks(0, (), (), (), b"", kind=Kind.RETURNED, last=True))
        elif kind == Kind.DRAIN and unpack_drain(message) is DrainMode.DRAIN:
            member.socket.send(pack_exit())
        return kind != Kind.EXIT

    def _welcomed(self, member: _Member, message: bytes) -> None:
        welcome = unpack_welcome(message)
        fresh, member.number = not member.number, welcome.manager
        self._period_s = welcome.heartbeat_period_s
        if fresh:
            self._beats.append((time.monotonic() + self._period_s, member))
            self._registered(len(self._beats))

    def _offer(self, member: _Member) -> Registration:
        fleet, python = self._fleet, platform.python_version()
        return Registration(
            member.name, fleet.block, "simulated", os.getpid(), fleet.workers, fleet.prefetch, float(fleet.workers),
            python=python, worker_pids=tuple(range(1, fleet.workers + 1)),
        )  # fmt: skip

    def _answer(self, member: _Member, message: bytes) -> None:
        keys = unpack_tasks(message).keys
        for some in [keys[at : at + 1] for at in range(len(keys))] if self._fleet.singly else [keys]:
            member.sequence += 1
            count, zeros = len(some), [0] * len(some)
            message = pack_results(
                member.number, member.sequence, 0, some, zeros, zeros, zeros, bytes(count), [b""] * count
            )
            member.socket.send_multipart(split(message))  # fmt: skip

    def _beat(self) -> None:
        now = time.monotonic()
        while self._beats and self._beats[0][0] <= now:
            due, member = self._beats.popleft()
            if not member.socket.closed:
                member.socket.send(pack_heartbeat(Heartbeat(member.number, time.time_ns(), 0)))
                self._beats.append((due + self._period_s, member))
                self._serve(int(member.socket.get(zmq.FD)))  # sending may have swallowed the signal of a message


class FleetProcess:
    """A process of simulated managers; a context manager that ends it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flow_executors.testing.managers", "--run", fleet.run_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(encode(fleet) + b"\n")
        self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Process id of the simulated managers."""
        return self._process.pid

    def wait_registered(self, timeout_s: float) -> None:
        """Wait until all are registered. Raises TimeoutError, or ExecutorError if the process ended."""
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], timeout_s)[0]:
            raise TimeoutError(f"not all {self._fleet.count} managers registered in {timeout_s:g} s")
        if output.readline() != b"registered\n":
            raise ExecutorError("a process of simulated managers ended")

    def close(self) -> None:
        """End it: its input ends."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)

    def __enter__(self) -> FleetProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> int:
    """Run one process of managers: its settings are the first line of standard input, whose end is the end."""
    fleet = decode(Fleet, sys.stdin.buffer.readline())

    def registered(count: int) -> None:
        if count == fleet.count:
            print("registered", flush=True)  # noqa: T201 - this is how the process tells its parent

    members = Members(fleet, registered)
    try:
        members.run(sys.stdin.fileno())
    except BrokenPipeError:
        pass
    finally:
        members.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
