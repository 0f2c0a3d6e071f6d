"""The script, one manager and its workers, with messages that take their time; real pipes, no processes."""

from __future__ import annotations

import os
import platform
import select
from collections import deque

from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.interfaces.outcome import Loss, LossKind, Verdict
from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.direct.worker_channels import DirectWorkerChannels
from flow_executors.interchange.interchange_core import InterchangeCore
from flow_executors.interchange.settings import CoreSettings
from flow_executors.manager.manager_core import ManagerCore, Taken
from flow_executors.manager.results import pack_returned
from flow_executors.wire.commands import Command, pack_command
from flow_executors.wire.direct_messages import (
    DirectChannelOffer,
    TakenBack,
    WorkerDied,
    pack_channel_offer,
    pack_taken,
    pack_worker_died,
    unpack_claim,
)
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    DEFAULT_CLASS,
    Credit,
    PeerInfo,
    Registration,
    pack_cancel,
    pack_credit,
    pack_hello,
    pack_loss,
    pack_register,
    pack_spec,
    unpack_cancel,
    unpack_spec,
)
from flow_executors.wire.results import unpack_results
from flow_executors.wire.tasks import pack_record, pack_result, pack_task, pack_tasks, unpack_tasks
from flow_executors.worker.packets import FRAME, PACKET, is_direct, key_of, made_plain

PEER = b"peer"
DIGEST = b"d" * 16
WHO = PeerInfo("client", "run", platform.python_version())
BOTH = TaskSpec(Resources(cores=2.0))
LOST = pack_loss(Loss(LossKind.WORKER, reason="it died"))


class Worker:
    """A worker's pipes, and what it runs."""

    def __init__(self, rank: int, pid: int) -> None:
        self.rank = rank
        self.pid = pid
        self.task_out, self.task_in = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        self.direct_out, self.lane_in = os.pipe2(os.O_NONBLOCK)
        self.running: bytes | None = None
        self.killed_at = False

    def read(self) -> bytes | None:
        """Take a packet out of the pipe."""
        try:
            return os.read(self.task_out, PACKET)
        except BlockingIOError:
            return None

    @property
    def waits(self) -> bool:
        """Whether there is a packet in the pipe."""
        poll = select.poll()
        poll.register(self.task_out, select.POLLIN)
        return bool(poll.poll(0))

    def write(self, key: int, status: int, payload: bytes = b"") -> None:
        """Write a result to the channel."""
        os.write(self.lane_in, FRAME.pack(len(payload), key, 1, 2, status) + payload)

    def close(self) -> None:
        """Close all ends."""
        for end in (self.task_out, self.task_in, self.direct_out, self.lane_in):
            os.close(end)


class Node:
    """What a manager does around its core, and its workers."""

    def __init__(self, workers: int) -> None:
        self.core = ManagerCore(Capacity(workers), 0)
        self.number = 0
        self.to_client: deque[bytes] = deque()
        self.workers: dict[int, Worker] = {}
        self.next_pid = 1000
        self.large: dict[int, bytes] = {}
        self.told_slots = workers

    def spawn(self, rank: int) -> None:
        """A worker is there."""
        self.next_pid += 1
        worker = self.workers[rank] = Worker(rank, self.next_pid)
        self.core.worker_up(rank, worker.pid, 15, 0.0)
        ends = worker.task_in, worker.direct_out
        inodes = [os.fstat(end).st_ino for end in ends]
        self.to_client.append(pack_channel_offer(DirectChannelOffer(self.number, rank, worker.pid, *ends, *inodes)))

    def take(self, message: bytes, now: float) -> None:
        """Do what a message asks for."""
        kind, core = message[0], self.core
        if kind == Kind.TASKS:
            batch = unpack_tasks(message)
            records = [bytes(record) for record in batch.records()]
            core.accept(batch.class_id, list(zip(batch.keys, records, strict=True)))
        elif kind == Kind.SPEC:
            class_id, spec = unpack_spec(message)
            core.add_class(class_id, ResourceRequest.of(spec, core.capacity))
        elif kind == Kind.CANCEL:
            core.cancel(*unpack_cancel(message))
        elif kind == Kind.CLAIM:
            core.claim(unpack_claim(message), now)
        elif kind == Kind.DRAIN:
            core.drain()
        self.act(now)

    def act(self, now: float) -> None:
        """Hand out, and do what else the core wants."""
        core = self.core
        for rank, count in core.readbacks(now):
            core.took_back(rank, self.taken_back(rank, count))
        for assignment in core.assign(now):
            record = bytes(assignment.record)
            if len(record) > PACKET:  # a real one writes an envelope
                self.large[assignment.key] = record
            os.write(self.workers[assignment.rank].task_in, record[:100])
        effects = core.take_effects()
        self.report_taken(effects.taken)
        for rank in effects.kill:
            self.workers[rank].killed_at = True
        for key in effects.cancelled:
            self.report(key, Verdict.CANCELLED)
        for class_id, key, record in effects.returned:
            self.to_client.append(pack_returned(class_id, [(key, record)], last=False))
        if core.draining and self.told_slots:
            self.told_slots = 0
            self.to_client.append(pack_credit(Credit(1, 0, 0, 0)))

    def report_taken(self, taken: list[Taken]) -> None:
        """Tell the script what it gave to workers that has been read back."""
        self.to_client.extend(pack_taken(TakenBack(self.number, *one)) for one in taken)

    def taken_back(self, rank: int, count: int) -> list[tuple[int, bytes]]:
        """Read packets back."""
        found = []
        while len(found) < count and (packet := self.workers[rank].read()) is not None:
            key = key_of(packet)
            found.append((key, self.large.get(key) or made_plain(packet)))
        return found

    def report(self, key: int, verdict: Verdict, payload: bytes = b"", rank: int = 0) -> None:
        """Tell an outcome."""
        self.to_client.append(pack_result(self.number, 0, 0, key, 1, 2, rank, verdict, payload))

    def start(self, rank: int) -> int | None:
        """A worker takes what is in its pipe; return the key."""
        worker = self.workers[rank]
        packet = worker.read() if worker.running is None else None
        if packet is None:
            return None
        worker.running = packet
        return key_of(packet)

    def finish(self, rank: int, large: bool, now: float) -> int:
        """A worker's task ends; return its key."""
        worker = self.workers[rank]
        assert worker.running is not None
        key, direct = key_of(worker.running), is_direct(worker.running)
        worker.running = None
        if direct and not large:
            worker.write(key, Verdict.OK)
            return key
        self.report(key, Verdict.OK, rank=rank)
        self.core.finished(rank, [key], 0.001, now)
        self.act(now)
        return key

    def die(self, rank: int, now: float) -> None:
        """A worker dies; what it had not begun goes to others at once, and another takes its place after that."""
        unstarted = self.taken_back(rank, PACKET)
        worker = self.workers.pop(rank)
        worker_loss = self.core.worker_down(rank, unstarted)
        for key in worker_loss.keys:
            self.report(
                key,
                Verdict.CANCELLED if worker_loss.termination else Verdict.LOST,
                b"" if worker_loss.termination else LOST,
                rank,
            )
        self.report_taken(self.core.take_taken())
        self.to_client.append(pack_worker_died(WorkerDied(self.number, rank, worker.pid, Verdict.LOST, LOST)))
        worker.close()
        self.act(now)
        self.spawn(rank)
        self.act(now)


class Script:
    """What an exchange does around its core and its channels."""

    def __init__(self) -> None:
        self.core = InterchangeCore(CoreSettings("run", platform.python_version(), 0, 1e6, 1e6), WHO, lambda: 0)
        self.poll = select.poll()
        self.channels = DirectWorkerChannels(self.core, self.poll)
        self.to_managers: deque[bytes] = deque()
        self.outcomes: dict[int, Verdict] = {}
        """The first word of each task's end, which is the one that counts."""

    def admit(self, node: Node, workers: int) -> None:
        """Let a manager in."""
        offer = Registration("m", "0", "here", os.getpid(), workers, python=platform.python_version())
        self.core.from_peer(PEER, "0", pack_hello(PeerInfo("manager", "run", WHO.python)), 0.0)
        self.core.from_peer(PEER, "0", pack_register(0, offer, ()), 0.0)
        (node.number,) = self.core.pool.by_number
        self.core.from_client(pack_spec(1, BOTH), 0.0)
        self.turn(0.0)

    def submit(self, key: int, size: int, class_id: int, now: float) -> None:
        """Take a task."""
        record = pack_record(DIGEST, key, class_id, bytes(size))
        if class_id != DEFAULT_CLASS:
            self.core.from_client(pack_tasks(class_id, (DIGEST,), (key,), (len(record),), record), now)
        else:
            message = pack_task(DIGEST, key, record)
            if not self.core.pass_on(DIGEST, key, message):
                self.core.from_client(message, now)
        self.turn(now)

    def listen(self, now: float) -> None:
        """Take the results that are there."""
        self.channels.take([descriptor for descriptor, _ in self.poll.poll(0)], now)
        self.turn(now)

    def hear(self, message: bytes, now: float) -> None:
        """Take what the manager says."""
        self.channels.take([descriptor for descriptor, _ in self.poll.poll(0)], now)
        self.channels.hear(PEER, "", message, now)
        self.turn(now)

    def cancel(self, keys: list[int], kill: bool, now: float) -> None:
        """Ask to cancel."""
        self.core.from_client(pack_cancel(keys, kill), now)
        self.turn(now)

    def drain(self, now: float) -> None:
        """Ask the manager to leave."""
        self.core.from_client(pack_command(Command(1, "drain", ("0",), (), None)), now)
        self.turn(now)

    def turn(self, now: float) -> None:
        """End a turn."""
        self.core.to_managers += self.channels.overdue(now)
        self.core.turn(now)
        for peer, message in self.core.to_managers:
            said = self.channels.divert(peer, message, now) if peer in self.channels else [message]
            self.to_managers.extend(bytes(one) for one in said if one[0] not in (Kind.HELLO, Kind.WELCOME))
        self.core.to_managers.clear()
        for message in self.core.to_client:
            if message[0] == Kind.RESULTS:
                batch = unpack_results(message)
                for key, status in zip(batch.keys, batch.statuses, strict=True):
                    self.outcomes.setdefault(key, Verdict(status))
        self.core.to_client.clear()
