"""A core of an interchange with a client's and managers' view of it, for tests."""

from __future__ import annotations

import platform
from dataclasses import replace

from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.interchange_core import InterchangeCore
from flow_executors.interchange.sessions import Sessions
from flow_executors.interchange.settings import CoreSettings
from flow_executors.wire.commands import Reply, unpack_reply
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import (
    Credit,
    ExitCode,
    ManagerLeft,
    PeerInfo,
    Registration,
    pack_hello,
    pack_register,
    pack_spec,
    unpack_cancel,
    unpack_count,
    unpack_credit,
    unpack_exit,
    unpack_left,
    unpack_need,
    unpack_welcome,
)
from flow_executors.wire.results import pack_results, unpack_results
from flow_executors.wire.tasks import pack_record, pack_tasks, unpack_tasks

DIGEST = b"d" * 16
WHO = PeerInfo("interchange", "run", platform.python_version())
SECRET = b"the same for all interchanges of an executor"
GPU = TaskSpec(Resources(gpus=1.0))


class Node:
    """What a manager would be: keeps the tasks that it was sent."""

    def __init__(
        self, name: str, peer: bytes, workers: int, prefetch: int, block: str = "0", gpus: float = 0.0
    ) -> None:
        self.peer = peer
        self.offer = Registration(
            name, block, "node", 1, workers, prefetch, float(workers), gpus=gpus, python=platform.python_version()
        )
        self.number = 0
        self.tasks: dict[int, int] = {}  # key -> class
        self.sequence = 0
        self.left = False


class World:
    """A core with a client's and managers' view of it."""

    def __init__(self, **changes: float) -> None:
        settings = replace(CoreSettings("run", platform.python_version(), 0, 1.0, 5.0, secret=SECRET), **changes)
        self.now = 100.0
        self.core = InterchangeCore(settings, WHO, lambda: int(self.now * 1e9))
        self.nodes: dict[bytes, Node] = {}
        self.outcomes: dict[int, list[Verdict]] = {}
        self.reasons: dict[int, str] = {}
        self.submitted: set[int] = set()
        self.departures: list[ManagerLeft] = []
        self.credits: list[Credit] = []
        self.replies: list[Reply] = []
        self.needed: list[bytes] = []
        self.exits: list[tuple[bytes, ExitCode, str]] = []
        self.recalls: list[tuple[bytes, int]] = []
        self.sent: list[tuple[bytes, bytes]] = []
        self.told_up: list[bytes] = []

    def turn(self) -> None:
        self.core.turn(self.now)
        for peer, message in self.core.to_managers:
            self.sent.append((peer, bytes(message)))
            self._down(peer, bytes(message))
        self.core.to_managers.clear()
        for message in self.core.shared.take_for_client():
            self.told_up.append(bytes(message))
            self._up(bytes(message))
        self.core.delivered(False)

    def _down(self, peer: bytes, message: bytes) -> None:
        node = self.nodes.get(peer)
        kind = message[0]
        if kind == Kind.TASKS:
            assert node is not None
            batch = unpack_tasks(message)
            node.tasks.update(dict.fromkeys(batch.keys, batch.class_id))
        elif kind == Kind.WELCOME:
            assert node is not None
            welcome = unpack_welcome(message)
            node.number = welcome.manager
            node.offer = replace(node.offer, session=welcome.session)
        elif kind == Kind.EXIT:
            self.exits.append((peer, *unpack_exit(message)))
        elif kind == Kind.RECALL:
            self.recalls.append((peer, unpack_count(message, Kind.RECALL)))
        elif kind == Kind.CANCEL and node is not None:
            keys, _ = unpack_cancel(message)
            self.finish(node, [key for key in keys if key in node.tasks], Verdict.CANCELLED)

    def _up(self, message: bytes) -> None:
        kind = message[0]
        if kind == Kind.RESULTS:
            batch = unpack_results(message)
            for key, status in zip(batch.keys, batch.statuses, strict=True):
                self.outcomes.setdefault(key, []).append(Verdict(status))
            self.reasons.update(zip(batch.keys, (str(p, "utf-8", "replace") for p in batch.payloads()), strict=True))
        elif kind == Kind.LEFT:
            self.departures.append(unpack_left(message))
        elif kind == Kind.CREDIT:
            self.credits.append(unpack_credit(message))
        elif kind == Kind.REPLY:
            self.replies.append(unpack_reply(message))
        elif kind == Kind.NEED:
            self.needed += unpack_need(message)

    def join(self, node: Node, held: tuple[int, ...] = (), number: int = 0) -> Node:
        self.nodes[node.peer] = node
        hello = pack_hello(PeerInfo("manager", "run", platform.python_version()))
        self.core.from_peer(node.peer, node.offer.block, hello, self.now)
        self.core.from_peer(node.peer, node.offer.block, pack_register(number, node.offer, held), self.now)
        self.turn()
        return node

    def rejoin(self, node: Node, number: int, held: tuple[int, ...] = ()) -> Node:
        """Let a manager come to which an earlier interchange has given a number."""
        node.offer = replace(node.offer, session=Sessions(SECRET).of(number, node.offer.block))
        return self.join(node, held, number)

    def submit(self, *keys: int, class_id: int = 0) -> None:
        self.submitted.update(keys)
        records = [pack_record(DIGEST, key, class_id, b"") for key in keys]
        message = pack_tasks(class_id, [DIGEST], keys, list(map(len, records)), b"".join(records))
        self.core.from_client(message, self.now)
        self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass, looking whenever the core wants to."""
        end = self.now + seconds
        while (due := self.core.next_deadline(self.now)) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.tick(self.now)
            self.turn()
            if self.core.next_deadline(self.now) == due:
                break
        self.now = max(self.now, end)

    def describe(self, class_id: int, spec: TaskSpec) -> None:
        self.core.from_client(pack_spec(class_id, spec), self.now)

    def finish(self, node: Node, keys: list[int], verdict: Verdict = Verdict.OK) -> None:
        node.sequence += 1
        zeros = [0] * len(keys)
        statuses = bytes([verdict]) * len(keys)
        message = pack_results(node.number, node.sequence, 0, keys, zeros, zeros, zeros, statuses, [b""] * len(keys))
        for key in keys:
            node.tasks.pop(key, None)
        self.core.from_peer(node.peer, "", message, self.now)

    def give_back(self, node: Node, keys: list[int]) -> None:
        classes: dict[int, list[int]] = {0: []}
        for key in keys:
            classes.setdefault(node.tasks.pop(key), []).append(key)
        for class_id, some in sorted(classes.items(), reverse=True):
            records = [pack_record(DIGEST, key, class_id, b"") for key in some]
            lengths, body = list(map(len, records)), b"".join(records)
            message = pack_tasks(class_id, [DIGEST], some, lengths, body, kind=Kind.RETURNED, last=not class_id)
            self.core.from_peer(node.peer, "", message, self.now)


def node(name: str = "m", workers: int = 2, prefetch: int = 2, **more: object) -> Node:
    return Node(name, name.encode(), workers, prefetch, **more)  # type: ignore[arg-type]  # test shorthand
