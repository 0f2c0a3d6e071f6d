"""One start of a pilot-job executor: its client, its interchange, its blocks. Gone at ``shutdown``."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex

from flow_core.errors import ExecutorBroken, ExecutorClosed
from flow_core.folders import make_directory
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import EventKind, EventsLost, NodeHeld, NodeJoined, NodeLeft, Sampled
from flow_core.interfaces.executor import ShutdownReport
from flow_core.interfaces.scaling import Load
from flow_core.remote.worker_imports import VARIABLE as IMPORTS_VARIABLE
from flow_executors.client.client import Client
from flow_executors.client.interchange_process import InterchangeSettings, bind_hosts, is_wildcard, listen
from flow_executors.client.interface import ExecutorClient
from flow_executors.client.node_keeper import NodeKeeper
from flow_executors.client.node_memory import NodeMemory
from flow_executors.client.receiver import ReceiverCallbacks
from flow_executors.common.run_marker import RunMarker, make_marker
from flow_executors.common.versions import CODE_VARIABLE, differences, other_code, own_code, version_of
from flow_executors.launching.node_python import NodePython, path_code
from flow_executors.scaling.block import Bounds
from flow_executors.scaling.failures import BlockErrorHandler
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.job_hosts_core import Joined
from flow_executors.scaling.scaler import Scaler
from flow_executors.serialize.script_code import ScriptCode
from flow_executors.wire.auth import READERS_VARIABLE, SECRET_NAME, BlockSecret, make_pair
from flow_executors.wire.commands import Reply
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.messages import ManagerLeft, Registration, WorkersOfNode, unpack_files, unpack_samples
from flow_executors.wire.transport import listen_locally
from flow_providers.interfaces.locality import Locality
from flow_providers.interfaces.provider import ExecutionProvider

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_executors.launching.container_launch import ContainerPlan
    from flow_executors.launching.node_launch import NodeLaunch

# Seconds that the interchange has to answer the scaler: it answers within a turn, and the scaler asks again in its next
# one.
_ACTIVITY_S = 5.0
# Managers of a block, a node and beyond that, where a launcher or command of the user starts them: a bound for thieves
# of its key, which no launcher in use reaches.
_EACH_NODE, _BEYOND = 16, 64
# Seconds that the logs of nodes have to come at the end.
_LOGS_S = 3.0
# Share of the time of a shutdown that goes to the client; the blocks' jobs have the rest.
_BLOCKS_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What an executor wants of its runtime.

    Attributes:
        label: The executor's label.
        addresses: Where workers look for the interchange.
        network: Whether managers may come by the network, or only by the socket within this machine (if there is one).
        ports: Exact ports to listen at; None for one of the range.
        port_range: First port, and the one after the last.
        heartbeat_period_s: Seconds between heartbeats of managers.
        heartbeat_threshold_s: Seconds of silence after which they count as lost.
        sleep_threshold_s: Seconds for which managers with tasks wait for a silent script; 0: no longer than that.
        debug: Whether logs are detailed.
        packed: Whether the first node is filled before the next.
        provider: Where blocks come from; None: they come by themselves.
        block_error_handler: What decides whether failed blocks end the executor.
        block_start_timeout_s: How long a job may run before the first manager of its block connects.
        recovery_timeout_s: How long tasks of an executor that has worked wait while no block can be started.
        command: Makes the command of a manager from block, port, the address within this machine, and context.
        compares_code: Whether managers may run another Flow than the script's own files.
        nodes: How nodes come to their Python and to Flow; None where they are this machine.
        code_travels: Whether nodes may not see the script's own modules, so that these go there.
        code: Which do; None: all that are the script's own.
        managers: Managers of one block, each of which reads its key once; 0 where that is not known.
        guessed_workers: Workers of one node, estimated before one is seen; 0 for unknown.
        cores_per_worker: Cores that a worker counts for.
        hold_nodes: Whether nodes are held that fail what others run.
        local_cores: Cores of this machine, if all blocks share them; 0 if they are elsewhere.
        software: Version of this package.
        max_transfer_bytes: Most bytes of a task's files that go over the connection of its manager, each way.
        container: The container in which managers run; None: they run on the node itself.
    """

    label: str
    addresses: tuple[str, ...]
    network: bool
    ports: tuple[int, ...] | None
    port_range: tuple[int, int]
    heartbeat_period_s: float
    heartbeat_threshold_s: float
    sleep_threshold_s: float
    debug: bool
    packed: bool
    provider: ExecutionProvider | None
    block_error_handler: bool | BlockErrorHandler | None
    block_start_timeout_s: float
    recovery_timeout_s: float
    command: Callable[[str, int, str, RunContext], str]
    compares_code: bool
    nodes: NodePython | None
    code_travels: bool
    code: Sequence[str] | None
    managers: int
    guessed_workers: int
    cores_per_worker: float
    hold_nodes: bool
    local_cores: int
    software: str
    max_transfer_bytes: int = 10 << 30
    container: ContainerPlan | None = None


class ExecutorRuntime:
    """A running executor. Any thread."""

    def __init__(self, plan: LaunchPlan, context: RunContext) -> None:
        """Start everything. Raises ExecutorError; then nothing is left running."""
        self.plan = plan
        self._context = context
        self._server = make_pair()
        self._lock = threading.Lock()
        self._closed: ShutdownReport | None = None
        self._closing = False
        self._crowded = False
        self._logged_kinds: set[str] = set()
        self._telling = threading.Lock()
        self._told_held: dict[str, str] = {}
        self._nodes_of: dict[int, tuple[str, ...]] = {}
        """Names of the nodes of managers that have workers on several, by number."""
        # Before the sockets: the interchange writes its log there as soon as it runs.
        make_directory(context.executor_dir)
        self._marker = _marker(context)
        self._nodes = self._make_launch(context, plan)
        self._site = self._open_site(context, plan)
        hooks = ReceiverCallbacks(self._joined, self._left, self._sampled, self._broken)
        self.client = self._make_client(self._site, hooks)
        self.keeper = self._make_keeper(context) if plan.hold_nodes else None
        self.client.directory.watch = self.keeper
        self._given_back: set[str] = set()
        """Nodes whose blocks were given back once: the scheduler may give the same ones again."""
        self.port = self._site.port
        self.scaler = self._make_scaler()
        if self.scaler is not None:
            self.client.directory.job_words = self.scaler.last_words_of
        self._begin()

    def _make_launch(self, context: RunContext, plan: LaunchPlan) -> NodeLaunch | None:
        if plan.nodes is None:
            return None
        # Imported here: most scripts send no archives, and would load what makes them at each start.
        from flow_executors.launching.node_launch import NodeLaunch

        def listening() -> socket.socket:
            # Exact ports: the first that is free is the interchange's, so it is passed over.
            return listen(bind_hosts(plan.addresses), plan.ports, plan.port_range, plan.label)[1]

        return NodeLaunch(plan.nodes, plan.addresses, listening, context.executor_dir.absolute(), context.logger)

    def _open_site(self, context: RunContext, plan: LaunchPlan) -> InterchangeSettings:
        try:
            local = listen_locally()
        except OSError as error:
            context.logger.info("managers of this machine come by the network, too: %s", error)
            local = None
        try:
            # No TCP port is open while the provider is local: nobody on the network can try it.
            host, listener = self._listen(plan, context) if plan.network or local is None else ("", None)
        except BaseException:
            if local is not None:
                local.close()
            raise
        return InterchangeSettings(
            plan.label,
            context.run_id,
            context.executor_dir.absolute(),
            listener,
            local,
            host,
            self._server,
            plan.heartbeat_period_s,
            plan.heartbeat_threshold_s,
            plan.sleep_threshold_s,
            plan.debug,
            plan.packed,
            self._marker,
            _most_managers(plan),
            plan.max_transfer_bytes,
        )

    def _listen(self, plan: LaunchPlan, context: RunContext) -> tuple[str, socket.socket]:
        host, listener = listen(bind_hosts(plan.addresses), plan.ports, plan.port_range, plan.label)
        if is_wildcard(host) and len(plan.addresses) == 1:
            context.logger.info("%s is no interface of this machine: all are listened at", plan.addresses[0])
        return host, listener

    def _make_client(self, site: InterchangeSettings, hooks: ReceiverCallbacks) -> ExecutorClient:
        return Client(site, self._context.listener, hooks, self._context.logger, self.plan.software, self._code())

    def _code(self) -> ScriptCode | None:
        plan = self.plan
        return ScriptCode(plan.code, self._context.logger) if plan.code_travels else None

    def _make_keeper(self, context: RunContext) -> NodeKeeper:
        memory = NodeMemory(context.run_dir.parent)
        keeper = NodeKeeper(self.plan.label, memory, context.logger, lambda nodes: self.client.hold_nodes(nodes))
        keeper.on_change = self._nodes_changed
        return keeper

    def _close_keeper(self) -> None:
        if self.keeper is not None:
            self.keeper.close()

    def _make_scaler(self) -> Scaler | None:
        plan = self.plan
        if plan.provider is None:
            return None
        return Scaler(
            self,
            plan.provider,
            self._context,
            plan.block_error_handler,
            slots_hint=self.slots_per_block,
            bounds=_bounds(plan),
        )

    def _begin(self) -> None:
        try:
            keeper = self.keeper
            if keeper is not None:
                keeper.start()
                self._tell_held()
                self.client.hold_nodes(keeper.held)
            # The interchange first: managers of a fast provider connect at once.
            self.client.start()
            if keeper is not None and keeper.held:
                self.client.hold_nodes(keeper.held)
        except BaseException:
            self._close_keeper()
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
        """End everything within about the time given; return what was forced. Idempotent."""
        with self._lock:
            if self._closed is None:
                self._closed = self._close(timeout_s)
            return self._closed

    def _close(self, timeout_s: float) -> ShutdownReport:
        began = time.monotonic()
        self._closing = True  # no new blocks
        self.client.directory.ending = True
        # While there is a way to them: the logs of nodes that cannot write them into the run's directory.
        if not self.client.files.closing:
            self.client.files.fetch_logs(self.client.directory.apart(), min(_LOGS_S, timeout_s / 4))
        self._close_keeper()
        # The client first: managers that are sent home end their jobs in order, and only the rest is cancelled.
        forced = self.client.close(max(0.5, timeout_s * _BLOCKS_SHARE))
        if self.scaler is not None:
            left = timeout_s - (time.monotonic() - began)
            forced += self.scaler.close(max(1.0, left))
        self._site.close()
        if self._marker is not None:
            self._marker.remove()
        if self._nodes is not None:
            self._nodes.close()
        not_ended = self.scaler.not_ended if self.scaler is not None else ()
        return ShutdownReport(tuple(forced), time.monotonic() - began, not_ended=not_ended)

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
        # The most that was seen: a node of which part is taken at present says less about the next one.
        return max(workers, default=self.plan.guessed_workers) * nodes

    def order(self, block: str) -> BlockOrder:
        """Make a key pair for a new block, admit it, and return what the block is to run. Raises ExecutorClosed."""
        # A block that is ordered now would start after its executor has ended.
        if self._closing:
            raise ExecutorClosed(f"the executor {self.label} is being shut down: no new blocks")
        self._look_at_cores()
        pair = make_pair()
        # Admitted before the job exists: its manager may connect before ``submit`` has returned.
        self.client.admit(pair.public, block)
        secret = BlockSecret(block, self._server.public, pair)
        command = self.plan.command(block, self.port, self._site.local_address, self._context)
        files: tuple[tuple[str, str], ...] = ()
        paths = seen = () if self._is_elsewhere() else import_paths()
        if self._nodes is not None and self._nodes.takes(command):
            command, files = self._nodes.prepared(block, pair, command)
            if paths and self._marker is not None:
                # Nodes of a cluster are expected to see this disk; those that do not must not take theirs for it.
                command, paths = f"{_path_code(paths, self._marker)}\n{command}", ()
        if self.plan.container is not None:
            command, paths = self._in_container(self.plan.container, command, seen, paths), ()
        environment = (*paths, (READERS_VARIABLE, str(self.plan.managers)))
        if self.plan.compares_code:
            environment = (*environment, (CODE_VARIABLE, "1"))
        if IMPORTS_VARIABLE in os.environ:
            environment = (*environment, (IMPORTS_VARIABLE, os.environ[IMPORTS_VARIABLE]))
        return BlockOrder(
            command, environment, ((SECRET_NAME, secret.to_bytes()),), files, forward=self._forward_target()
        )

    def _in_container(
        self, plan: ContainerPlan, command: str, seen: Sequence[tuple[str, str]], left: Sequence[tuple[str, str]]
    ) -> str:
        """Return the command that runs a manager's in a container.

        ``seen``: the variable with the script's own directories; ``left``: the same, if the command does not set it.
        """
        # Imported here: most scripts have no containers.
        from flow_executors.launching.container_launch import container_code

        if left and self._marker is not None:
            command = f"{_path_code(left, self._marker)}\n{command}"
        label = re.sub(r"[^A-Za-z0-9]+", "-", self.label).strip("-")
        name = f"flow-{label or 'pool'}-{token_hex(6)}"
        run_dir = self._context.run_dir.absolute()
        shared = [] if self._is_elsewhere() else [str(run_dir), str(self._context.executor_dir.absolute())]
        read = [path for _, paths in seen for path in paths.split(os.pathsep)]
        return container_code(replace(plan, name=name, shared=shared, read=read), command)

    def _is_elsewhere(self) -> bool:
        """Whether paths of this machine mean nothing to the nodes."""
        provider = self.plan.provider
        return provider is not None and provider.locality is Locality.ELSEWHERE

    def _forward_target(self) -> tuple[str, int] | None:
        """Return where connections that come by a channel are to go; None where no port is open."""
        if not self.port:
            return None
        return ("127.0.0.1" if is_wildcard(self._site.host) else self._site.host, self.port)

    def _look_at_cores(self) -> None:
        """Warn, once, if the blocks of one machine have more workers than it has cores: new ones slow the others."""
        plan, scaler = self.plan, self.scaler
        if self._crowded or not plan.local_cores or scaler is None:
            return
        blocks = sum(not state.terminal for state in scaler.blocks().values())
        workers = self.slots_per_block
        if blocks > 1 and blocks * workers * plan.cores_per_worker > plan.local_cores:
            self._crowded = True
            self._context.logger.warning(
                "%s has %d blocks of %d workers on this machine of %d cores: tasks share them. With max_blocks=%d of "
                "its LocalProvider each core is used once",
                self.label,
                blocks,
                workers,
                plan.local_cores,
                max(1, int(plan.local_cores / (workers * plan.cores_per_worker))),
            )

    def dismiss(self, block: str) -> None:
        """A block's job is over: revoke its key."""
        self.client.revoke(block)
        if self._nodes is not None:
            self._nodes.revoke(block)

    def activity(self) -> Reply:
        """Ask the interchange what is connected, and what tasks of ranks lack. Raises ExecutorError."""
        return self.client.command("blocks", timeout_s=_ACTIVITY_S)

    def drain(self, blocks: Sequence[str], idle_for_s: float | None) -> Sequence[str]:
        """Drain blocks; return those that drain. Raises ExecutorError."""
        self.client.files.fetch_logs(self.client.directory.apart(blocks))
        reply = self.client.command("drain", blocks=blocks, idle_for_s=idle_for_s, timeout_s=_ACTIVITY_S)
        return [activity.block for activity in reply.blocks]

    def give_up(self, error: ExecutorBroken) -> None:
        """Nothing can run now: all tasks get this error. Those that come later wait for a fresh attempt."""
        self.client.fail(error)

    # -- from the receiver thread

    def _joined(self, number: int, offer: Registration, fresh: bool) -> None:
        # A manager that comes back, or comes to the next interchange, is no new one to scaling and monitoring.
        if not fresh:
            return
        context = self._context
        if offer.nodes is not None:
            self._nodes_of[number] = tuple(_name_of(offer, one.node) for one in offer.nodes)
        apart = ", which does not see the run's directory" if offer.is_apart else ""
        whence = f" from {offer.address}" if offer.address else ""
        context.logger.info(
            "manager %s joined%s: %d workers on %s%s", offer.manager_id, whence, offer.workers, offer.node, apart
        )
        self._compare(offer)
        if self.scaler is not None:
            self.scaler.joined(Joined(offer.block, offer.manager_id, offer.node, offer.address or ""))
            if self.keeper is not None and offer.node in self.keeper.held:
                self._nodes_changed()
        if context.events.wants & EventKind.NODE:
            for event in _nodes_joined(context.clock.time_ns(), self.label, offer):
                context.events.post(event)

    def _compare(self, offer: Registration) -> None:
        """Warn once a kind of software of which a node has another version. Minor versions of Python are the same."""
        theirs = {"Python": offer.python, "flow-executors": offer.software}
        theirs |= {"flow-core": offer.flow_core or "", "cloudpickle": offer.cloudpickle or ""}
        ours = {"Python": platform.python_version(), "flow-executors": self.plan.software}
        ours |= {"flow-core": version_of("flow_core"), "cloudpickle": version_of("cloudpickle")}
        for kind, text in differences(theirs, ours, offer.node).items():
            if kind not in self._logged_kinds:
                self._logged_kinds.add(kind)
                self._context.logger.warning("%s: %s", self.label, text)
        if offer.left_aside:
            if "left aside" not in self._logged_kinds:
                self._logged_kinds.add("left aside")
                text = "%s: %s on node %s is not the script's: the script's was sent there, as to all that have another"
                self._context.logger.info(text, self.label, offer.left_aside, offer.node)
        elif self.plan.compares_code and offer.software == self.plan.software and "code" not in self._logged_kinds:
            text = other_code(offer.code or "", own_code(), offer.software, offer.node)
            if text:
                self._logged_kinds.add("code")
                self._context.logger.warning("%s: %s", self.label, text)

    def _nodes_changed(self) -> None:
        """Tell the scaler which blocks have only nodes that are held."""
        self._tell_held()
        if self.scaler is None or self.keeper is None:
            return
        held = set(self.keeper.held)
        nodes: dict[str, set[str]] = {}
        for offer in list(self.client.directory.managers.values()):
            nodes.setdefault(offer.block, set()).add(offer.node)
        barred = {block: where for block, where in nodes.items() if where <= held}
        # While there is nothing better they stay: they may be free again in a moment.
        others = len(barred) < len(nodes)
        fresh = [block for block, where in barred.items() if others and not where <= self._given_back]
        for block in fresh:
            self._given_back |= barred[block]
        self.scaler.bar(barred.keys(), fresh)

    def _tell_held(self) -> None:
        """Post which nodes are held, and which no longer are, since this was last called."""
        if self.keeper is None or not self._context.events.wants & EventKind.NODE:
            return
        # One thread at a time, so that what is posted last is what is true.
        with self._telling:
            told, self._told_held = self._told_held, dict(self.keeper.reasons())
            now = self._context.clock.time_ns()
            for node in told.keys() | self._told_held.keys():
                reason = self._told_held.get(node, "")
                if told.get(node, "") != reason:
                    self._context.events.post(NodeHeld(now, self.label, node, reason))

    def _left(self, departure: ManagerLeft) -> None:
        context = self._context
        level = context.logger.warning if departure.lost else context.logger.info
        level("manager %s of block %s left: %s", departure.manager_id or "?", departure.block, departure.reason)
        if self.scaler is not None and departure.manager:  # who was turned away had never joined
            self.scaler.left(departure.block, departure.reason)
        if departure.manager and context.events.wants & EventKind.NODE:
            now = context.clock.time_ns()
            known = self._nodes_of.pop(departure.manager, (departure.manager_id,))
            for name in known:
                context.events.post(NodeLeft(now, self.label, departure.block, name, departure.reason, departure.lost))

    def _sampled(self, message: Buffer) -> None:
        for key, file in unpack_files(message):
            self._context.listener.moving(key, [file])
        events = self._context.events
        if not events.wants & (EventKind.SAMPLE | EventKind.LOG):
            return
        number, samples, lost, node = unpack_samples(message)
        offer = self.client.directory.managers.get(number)
        now = self._context.clock.time_ns()
        if offer is not None and samples:
            if offset := self.client.directory.clock_offset_ns(number):
                samples = tuple(replace(sample, time_ns=sample.time_ns + offset) for sample in samples)
            events.post(Sampled(now, self.label, offer.block, node or offer.node, offer.manager_id, samples))
        if lost:
            events.post(EventsLost(now, lost, f"a manager of {self.label} could not send all samples"))

    def _broken(self, error: ExecutorBroken) -> None:
        self._context.logger.error("%s", error)


def _bounds(plan: LaunchPlan) -> Bounds:
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


def _most_managers(plan: LaunchPlan) -> int:
    """Return how many managers of one block may register; 0 where nothing is known of its nodes."""
    if plan.managers or plan.provider is None:
        return plan.managers
    return _EACH_NODE * plan.provider.nodes_per_block + _BEYOND


def _nodes_joined(now: int, label: str, offer: Registration) -> list[NodeJoined]:
    """Return an event for each node; monitoring knows nodes by names of managers, so further ones have names, too."""
    nodes = offer.nodes or (WorkersOfNode(offer.node, offer.workers, offer.pid, offer.cpu_count, offer.memory_bytes),)
    return [
        NodeJoined(
            now,
            label,
            offer.block,
            one.node,
            _name_of(offer, one.node),
            offer.pid if one.node == offer.node else one.pid,
            one.workers,
            one.cpu_count,
            one.memory_bytes,
            offer.python,
            offer.sees_run,
        )
        for one in nodes
    ]


def _name_of(offer: Registration, node: str) -> str:
    return offer.manager_id if node == offer.node else f"{offer.manager_id}/{node}"


def _path_code(paths: Sequence[tuple[str, str]], marker: RunMarker) -> str:
    return path_code(paths[0][1], marker.path, marker.sha256)


def _marker(context: RunContext) -> RunMarker | None:
    try:
        return make_marker(context.executor_dir)
    except OSError as error:
        context.logger.warning("nodes cannot be asked whether they see the run's directory: %s", error)
        return None


def import_paths() -> tuple[tuple[str, str], ...]:
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
