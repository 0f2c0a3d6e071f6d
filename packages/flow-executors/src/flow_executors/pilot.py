"""One start of a pilot-job executor: its client, its interchange, its blocks. Gone at ``shutdown``."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flow_core.errors import ExecutorBroken, ExecutorClosed
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import EventKind, EventsLost, NodeJoined, NodeLeft, Sampled
from flow_core.interfaces.executor import ShutdownReport
from flow_core.interfaces.scaling import Load
from flow_executors.client.client import Client
from flow_executors.client.face import ClientFace
from flow_executors.client.incarnation import Site
from flow_executors.client.listen import bind_host, listen
from flow_executors.client.receiver import Hooks
from flow_executors.scaling.block import Bounds
from flow_executors.scaling.failures import BlockErrorHandler
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.shell import Scaler
from flow_executors.wire.frames import BlockActivity, Departure, Registration, unpack_samples
from flow_executors.wire.keys import SECRET_NAME, BlockSecret, make_pair
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.local import listen_locally
from flow_providers.interfaces.provider import ExecutionProvider

_ACTIVITY_S = 5.0
_BLOCKS_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What an executor wants of its pilot.

    Attributes:
        label: The executor's label.
        addresses: Where workers look for the interchange.
        ports: Exact ports to listen at; None for one of the range.
        port_range: First port, and the one after the last.
        heartbeat_period_s: How often managers are to be heard.
        heartbeat_threshold_s: After which silence they count as lost.
        debug: Whether logs are detailed.
        packed: Whether the first node is filled before the next.
        provider: Where blocks come from; None: they come by themselves.
        block_error_handler: What decides whether failed blocks end the executor.
        block_start_timeout_s: How long a job may run before the first manager of its block connects.
        recovery_timeout_s: How long tasks of an executor that has worked wait while no block can be started.
        command: Makes the command of a manager from block, port, the address within this machine, and context.
        guessed_workers: Workers of one node as far as can be said before one is seen; 0 for unknown.
        software: Version of this package.
    """

    label: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...] | None
    port_range: tuple[int, int]
    heartbeat_period_s: float
    heartbeat_threshold_s: float
    debug: bool
    packed: bool
    provider: ExecutionProvider | None
    block_error_handler: bool | BlockErrorHandler | None
    block_start_timeout_s: float
    recovery_timeout_s: float
    command: Callable[[str, int, str, RunContext], str]
    guessed_workers: int
    software: str


class Pilot:
    """A running executor. Any thread."""

    def __init__(self, plan: Plan, context: RunContext) -> None:
        """Start everything. Raises ExecutorError; then nothing is left running."""
        self.plan = plan
        self._context = context
        self._server = make_pair()
        self._lock = threading.Lock()
        self._closed: ShutdownReport | None = None
        self._closing = False
        context.executor_dir.mkdir(parents=True, exist_ok=True)
        self._site = self._open_site(context, plan)
        hooks = Hooks(self._joined, self._left, self._sampled, self._broken)
        self.client = self._make_client(self._site, hooks)
        self.port = self._site.port
        self.scaler = self._make_scaler()
        self._begin()

    def _open_site(self, context: RunContext, plan: Plan) -> Site:
        host = bind_host(plan.addresses)
        listener = listen(host, plan.ports, plan.port_range, plan.label)
        try:
            local = listen_locally()
        except OSError as error:
            context.logger.info("managers of this machine come by the network, too: %s", error)
            local = None
        return Site(
            plan.label,
            context.run_id,
            context.executor_dir.absolute(),
            listener,
            local,
            host,
            self._server,
            plan.heartbeat_period_s,
            plan.heartbeat_threshold_s,
            plan.debug,
            plan.packed,
        )

    def _make_client(self, site: Site, hooks: Hooks) -> ClientFace:
        return Client(site, self._context.listener, hooks, self._context.logger, self.plan.software)

    def _make_scaler(self) -> Scaler | None:
        plan = self.plan
        if plan.provider is None:
            return None
        return Scaler(
            self,
            plan.provider,
            self._context,
            plan.block_error_handler,
            slots_hint=plan.guessed_workers * plan.provider.nodes_per_block,
            bounds=_bounds(plan),
        )

    def _begin(self) -> None:
        try:
            self.client.start()
        except BaseException:
            self._site.close()
            raise
        try:
            if self.scaler is not None:
                self.scaler.start()
            self.client.wait_ready(self._context.start_timeout_s)
        except BaseException:
            self.close(5.0)
            raise

    def close(self, timeout_s: float) -> ShutdownReport:
        """End everything within about the time given; say what was forced. Idempotent."""
        with self._lock:
            if self._closed is None:
                self._closed = self._close(timeout_s)
            return self._closed

    def _close(self, timeout_s: float) -> ShutdownReport:
        began = time.monotonic()
        self._closing = True  # no new blocks
        forced = self.client.close(max(0.5, timeout_s * _BLOCKS_SHARE))
        if self.scaler is not None:
            left = timeout_s - (time.monotonic() - began)
            forced += self.scaler.close(max(1.0, left))
        self._site.close()
        return ShutdownReport(tuple(forced), time.monotonic() - began)

    # -- BlockHost

    @property
    def label(self) -> str:
        """Label of the executor."""
        return self.plan.label

    def load(self) -> Load:
        """Return the load, with what the scaler knows of blocks."""
        client, credit = self.client, self.client.credit
        outstanding = client.outstanding
        running = min(credit.slots, max(0, outstanding - client.unsent))
        counts = self.scaler.counts() if self.scaler is not None else ()
        return Load(max(0, outstanding - running), running, credit.slots, tuple(counts), self.slots_per_block)

    @property
    def slots_per_block(self) -> int:
        """Slots that one block brings: as seen, else as guessed."""
        nodes = self.plan.provider.nodes_per_block if self.plan.provider is not None else 1
        workers = [offer.workers for offer in list(self.client.directory.managers.values())]
        return max(workers, default=self.plan.guessed_workers) * nodes

    def order(self, block: str) -> BlockOrder:
        """Make a key pair for a new block, admit it, and say what the block is to run. Raises ExecutorClosed."""
        if self._closing:
            raise ExecutorClosed(f"the executor {self.label} is being shut down: no new blocks")
        pair = make_pair()
        self.client.admit(pair.public, block)
        secret = BlockSecret(block, self._server.public, pair)
        command = self.plan.command(block, self.port, self._site.local_address, self._context)
        return BlockOrder(command, _environment(), ((SECRET_NAME, secret.to_bytes()),))

    def dismiss(self, block: str) -> None:
        """A block's job is over: revoke its key."""
        self.client.revoke(block)

    def activity(self) -> Sequence[BlockActivity]:
        """Ask the interchange what is connected. Raises ExecutorError."""
        return self.client.command("blocks", timeout_s=_ACTIVITY_S).blocks

    def drain(self, blocks: Sequence[str], idle_for_s: float | None) -> Sequence[str]:
        """Drain blocks; return those that drain. Raises ExecutorError."""
        reply = self.client.command("drain", blocks=blocks, idle_for_s=idle_for_s, timeout_s=_ACTIVITY_S)
        return [activity.block for activity in reply.blocks]

    def give_up(self, error: ExecutorBroken) -> None:
        """Nothing can run now: all tasks get this error. Those that come later wait for a fresh attempt."""
        self.client.fail(error)

    # -- from the receiver thread

    def _joined(self, number: int, offer: Registration, fresh: bool) -> None:
        if not fresh:
            return
        context = self._context
        context.logger.info("manager %s joined: %d workers on %s", offer.manager_id, offer.workers, offer.node)
        if self.scaler is not None:
            self.scaler.joined(offer.block)
        if context.events.wants & EventKind.NODE:
            context.events.post(_node_joined(context.clock.time_ns(), self.label, offer))

    def _left(self, departure: Departure) -> None:
        context = self._context
        level = context.logger.warning if departure.lost else context.logger.info
        level("manager %s of block %s left: %s", departure.manager_id or "?", departure.block, departure.reason)
        if self.scaler is not None and departure.manager:  # who was turned away had never joined
            self.scaler.left(departure.block, departure.lost, departure.reason)
        if departure.manager and context.events.wants & EventKind.NODE:
            now = context.clock.time_ns()
            left = NodeLeft(now, self.label, departure.block, departure.manager_id, departure.reason, departure.lost)
            context.events.post(left)

    def _sampled(self, message: Buffer) -> None:
        events = self._context.events
        if not events.wants & (EventKind.SAMPLE | EventKind.LOG):
            return
        number, samples, lost = unpack_samples(message)
        offer = self.client.directory.managers.get(number)
        now = self._context.clock.time_ns()
        if offer is not None and samples:
            events.post(Sampled(now, self.label, offer.block, offer.node, offer.manager_id, samples))
        if lost:
            events.post(EventsLost(now, lost, f"a manager of {self.label} could not send all samples"))

    def _broken(self, error: ExecutorBroken) -> None:
        self._context.logger.error("%s", error)


def _bounds(plan: Plan) -> Bounds:
    """Silence has lasted for the heartbeat threshold when it is noticed: what follows takes no longer than that."""
    threshold_s = plan.heartbeat_threshold_s
    standard = Bounds()
    return Bounds(
        start_s=plan.block_start_timeout_s,
        empty_s=min(standard.empty_s, threshold_s),
        cancel_again_s=min(standard.cancel_again_s, threshold_s),
        cancel_s=min(standard.cancel_s, threshold_s),
        recovery_s=plan.recovery_timeout_s,
    )


def _node_joined(now: int, label: str, offer: Registration) -> NodeJoined:
    return NodeJoined(
        now,
        label,
        offer.block,
        offer.node,
        offer.manager_id,
        offer.pid,
        offer.workers,
        offer.cpu_count,
        offer.memory_bytes,
        offer.python,
    )


def _environment() -> tuple[tuple[str, str], ...]:
    """Let workers import what the script imports: its own directory and whatever else it put on its path."""
    paths = sysconfig.get_paths()
    standard = {os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found: list[str] = []
    for entry in sys.path:
        path = os.path.realpath(entry or ".")
        inside = any(path == base or path.startswith(base + os.sep) for base in standard)
        if not inside and not path.endswith(".zip") and path not in found:
            found.append(path)
    found += [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part not in found]
    return (("PYTHONPATH", os.pathsep.join(found)),) if found else ()
