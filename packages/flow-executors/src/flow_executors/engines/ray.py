"""RayExecutor: tasks on a Ray cluster, one of its own or somebody's."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from flow_core.bounded_calls import within
from flow_core.errors import ExecutorError
from flow_core.guard import is_a, one_line, pass_signal
from flow_core.interfaces.call import TaskSpec
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.loss import LossKind
from flow_core.option_records import about, at_least, documented
from flow_core.remote.parcel_batch import BatchRunTwice, run_batch
from flow_executors.engines.answers import SILENT_S
from flow_executors.engines.engine import Batch, Engine, EngineEvents, EngineLoss, EngineWorker
from flow_executors.engines.executor import EngineExecutor, wrong_resources
from flow_executors.engines.head_process import HeadProcess
from flow_executors.engines.own_addresses import own_addresses
from flow_providers.interfaces.locality import Locality

_LARGE = 1 << 20  # bytes of a batch that are put into the object store by themselves
_BLOCK = "flow_block_"
_MB, _GB = 1 << 20, 10**9
_MOST = ((1 << 63) - 1) / 10_000  # of a resource: Ray counts in ten-thousandths
_ANSWER_S = 5.0  # seconds for Ray to tell its nodes
_FIRST_S = 0.2  # seconds between looks for nodes while there are none


@documented
@dataclass(eq=False, repr=False)
class RayExecutor(EngineExecutor):
    """Runs tasks on a Ray cluster: nodes in blocks of a provider, or a cluster that is there.

    A process has one connection to Ray: so it can have one started RayExecutor with a cluster of its own.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    kills = True
    honours = HONOURED_BY_ALL.union(("cores", "memory", "gpus", "named", "priority"))
    label: str = field(default="ray", metadata=about("Name of the executor, unique in a Config."))
    _: KW_ONLY
    address: str | None = field(
        default=None,
        metadata=about(
            "Address of a cluster that runs already: ``HOST:PORT`` or ``auto``; the cluster is somebody else's then, "
            "and stays. What the script has connected itself by ``ray.init`` is used, and not disconnected."
        ),
    )
    host: str | None = field(
        default=None,
        metadata=about(
            "Address of this machine at which nodes of blocks reach the head. None: ``127.0.0.1`` where blocks are on "
            "this machine, else that of its host name."
        ),
    )
    gpus_per_node: int = field(default=0, metadata=about("Accelerators of each node of a block.", at_least(0)))
    resources: Mapping[str, float] | None = field(
        default=None,
        metadata=about("Further resources of each node, by name: tasks ask for them in ``named``.", wrong_resources),
    )

    @property
    def borrowed(self) -> bool:
        """Whether the cluster is somebody else's."""
        return self.address is not None

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        given = {"host": self.host, "gpus_per_node": self.gpus_per_node, "resources": self.resources}
        return super().ineffective_options() + [
            f"{one}={value!r} has no effect: its cluster has nodes of its own"
            for one, value in given.items()
            if value and self.borrowed
        ]

    def _engine(self, context: RunContext) -> Engine:
        try:
            import ray  # noqa: F401  # asked for here, so that the error says what to do
        except ImportError as error:
            raise ExecutorError(f"executor {self.label!r} needs Ray ({one_line(error)}): pip install ray") from error
        return RayEngine(self, context)


class RayEngine(Engine):
    """One Ray cluster, as one started executor has it."""

    name = "Ray"

    def __init__(self, options: RayExecutor, context: RunContext) -> None:
        self._options = options
        self._context = context
        self.elastic = options.borrowed
        self._events: EngineEvents | None = None
        self._head: HeadProcess | None = None
        self._ours = False  # the connection of this process
        self._address = ""
        self._host = "127.0.0.1"
        self._directory = ""
        self._token = b""
        self._before: dict[str, str | None] = {}
        self._refs: dict[int, Any] = {}
        self._done: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        self._known: dict[str, EngineWorker] = {}
        self._looking = threading.Lock()
        self._silent_since = 0.0
        self._closed = threading.Event()
        self._hosts = own_addresses()
        self._functions: dict[TaskSpec, Any] = {}
        label = options.label
        self._threads = [
            threading.Thread(target=self._collect, name=f"flow-ray-{label}", daemon=True),
            threading.Thread(target=self._look_often, name=f"flow-ray-nodes-{label}", daemon=True),
        ]

    # -- begin and end

    def open(self, events: EngineEvents, timeout_s: float) -> None:
        """Start a head here, or connect to a cluster. Raises ExecutorError."""
        import ray

        self._events = events
        options = self._options
        try:
            if options.address is None:
                if ray.is_initialized():
                    raise ExecutorError(
                        f"executor {options.label!r} cannot start a Ray cluster of its own: this process is connected "
                        "to one already. Give address='auto' to use that, or call ray.shutdown() before"
                    )
                self._start_head(timeout_s)
            else:
                self._address = options.address
            if not ray.is_initialized():
                self._connect(timeout_s)
            self._learn_nodes()
        except BaseException as error:
            self.close(5.0)
            if isinstance(error, ExecutorError) or not isinstance(error, Exception):
                raise
            raise ExecutorError(
                f"executor {options.label!r}: the Ray cluster at {self._address or 'its head'} cannot be used: "
                f"{one_line(error)}"
            ) from error
        for thread in self._threads:
            thread.start()

    def _connect(self, timeout_s: float) -> None:
        import ray

        failed: list[BaseException] = []

        def connect() -> None:
            """Connect this process."""
            try:
                ray.init(
                    address=self._address,
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False,
                    namespace="flow",
                    **({"_node_ip_address": self._host} if self._head is not None else {}),
                )
            except BaseException as error:
                failed.append(error)

        if not within(timeout_s, connect, f"flow-ray-connect-{self._options.label}"):
            raise ExecutorError(f"the Ray cluster at {self._address} did not answer within {timeout_s:g} s")
        if failed:
            raise failed[0]
        self._ours = True

    def _start_head(self, timeout_s: float) -> None:
        provider = self._options.provider
        here = provider is None or provider.locality is Locality.THIS_MACHINE
        self._host = self._options.host or ("127.0.0.1" if here else socket.gethostbyname(socket.gethostname()))
        # Sockets of Ray lie there: their paths may have 107 bytes, which those of a run's directory often exceed.
        self._directory = tempfile.mkdtemp(prefix="flow-ray-")
        # Whoever reaches a head runs code as its user: so nobody does without what only this cluster knows.
        self._token = secrets.token_hex(32).encode()
        path = self._context.executor_dir / "ray-token"
        with suppress(OSError):
            path.unlink()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(self._token)
        self._use_token({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None})
        self._head = HeadProcess(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--node-ip-address", self._host, "--port", "0", "--num-cpus", "0", "--num-gpus", "0"),
                *("--temp-dir", self._directory, "--include-dashboard", "false", "--disable-usage-stats"),
            ],
            self._context.executor_dir / "head.log",
        )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(OSError):
                if address := (Path(self._directory) / "ray_current_cluster").read_text().strip():
                    self._address = address
                    return
            if ended := self._head.ended():
                raise ExecutorError(f"executor {self._options.label!r}: the head of Ray did not start: {ended}")
            time.sleep(0.05)
        tail = self._head.tail()
        raise ExecutorError(
            f"executor {self._options.label!r}: the head of Ray did not start within {timeout_s:g} s: {tail}"
        )

    def _use_token(self, variables: Mapping[str, str | None]) -> None:
        """Have this process, and those that it starts, show a token; what was there before comes back at the end."""
        for name, value in variables.items():
            self._before.setdefault(name, os.environ.get(name))
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # Ray has read the variables when it was imported.
        raylet: Any = import_module("ray._raylet")
        raylet.Config.initialize("")  # first: a thread of Ray's that still ends would ask for the token again
        raylet.AuthenticationTokenLoader.instance().reset_cache()

    def close(self, timeout_s: float) -> Sequence[str]:
        """Disconnect; end the head if it is the executor's own."""
        import ray

        self._closed.set()
        self._events = None
        forced: list[str] = []
        refs = list(self._refs.values())
        self._refs.clear()
        label = self._options.label

        def end() -> None:
            """Cancel what is left, and disconnect."""
            for ref in refs if ray.is_initialized() else ():
                with suppress(Exception):
                    ray.cancel(ref, force=True)
            if self._ours:
                with suppress(Exception):
                    ray.shutdown()

        if (refs or self._ours) and not within(max(0.5, timeout_s / 2), end, f"flow-ray-close-{label}"):
            forced.append(f"the connection of {label} to Ray did not close in time")
        self._done.put(None)
        if self._head is not None and (text := self._head.end(max(0.5, timeout_s / 2))):
            forced.append(text)
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._token:
            with suppress(Exception):
                self._use_token(dict(self._before))
            with suppress(OSError):
                (self._context.executor_dir / "ray-token").unlink()
            self._token = b""
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(1.0)
        return forced

    # -- blocks

    def worker_command(self, block: str) -> str:
        """Return the command of a block's nodes."""
        options = self._options
        memory = options.mem_per_worker
        workers = options.node_workers()
        resources = {
            f"{_BLOCK}{block}": 1,
            **{name: float(amount) for name, amount in (options.resources or {}).items()},
        }
        words = [
            *(options._python(), "-m", "ray.scripts.scripts", "start", "--block", "--address", self._address),
            *("--num-cpus", f"{workers * options.cores_per_worker:g}", "--num-gpus", str(options.gpus_per_node)),
            *("--resources", json.dumps(resources), "--disable-usage-stats"),
        ]
        if memory is not None:
            words += ["--memory", str(int(workers * memory * _GB))]
        if self._host == "127.0.0.1":
            words += ["--node-ip-address", self._host]
        token = 'export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$FLOW_SECRET_FLOW_RAY_TOKEN"'
        return f"cd {shlex.quote(os.getcwd())} 2>/dev/null\n{token}\nunset RAY_AUTH_TOKEN\nexec {shlex.join(words)}"

    def secrets(self) -> Sequence[tuple[str, bytes]]:
        """Return the token of the cluster."""
        return [("flow_ray_token", self._token)]

    # -- batches

    def submit(self, batch: Batch) -> None:
        """Give a batch to Ray."""
        import ray

        self._check_connected()
        parcels: Any = list(batch.parcels)
        if sum(map(len, parcels)) >= _LARGE:
            parcels = ray.put(parcels)
        ref = self._function(batch.spec).remote(parcels, batch.journal)
        self._refs[batch.number] = ref
        ref.future().add_done_callback(partial(self._note, batch.number))

    def _note(self, number: int, future: Any) -> None:
        self._done.put((number, future))

    def _function(self, spec: TaskSpec) -> Any:
        """Return ``run_batch`` as Ray runs it for a class of tasks."""
        import ray

        found = self._functions.get(spec)
        if found is None:
            wanted, each = spec.resources, float(self._options.cores_per_worker)
            options: dict[str, Any] = {
                "num_cpus": max(each, wanted.cores) if wanted.cores > 1 else each,
                "max_retries": 0,
                "name": "flow",
            }
            if wanted.gpus:
                options["num_gpus"] = wanted.gpus
            if wanted.memory_mb:
                options["memory"] = wanted.memory_mb * _MB
            if wanted.named:
                options["resources"] = {name: amount for name, amount in wanted.named if amount}
            if len(self._functions) > 1000:
                self._functions.clear()
            found = self._functions[spec] = ray.remote(run_batch).options(**options)
        return found

    def cancel(self, number: int) -> bool | None:
        """Take a batch back that has not begun; what runs is told to go on."""
        import ray

        ref = self._refs.get(number)
        # Elsewhere it may have begun, and Ray would interrupt it in the midst of a task.
        if (
            ref is not None
            and ray.is_initialized()
            and self._known
            and all(worker.here for worker in self._known.values())
        ):
            ray.cancel(ref, force=False, recursive=False)
        return None  # its future tells

    def kill(self, number: int, pid: int) -> bool:
        """End a batch with its worker process, which Ray replaces."""
        import ray

        ref = self._refs.get(number)
        if ref is None or not ray.is_initialized():
            return False
        ray.cancel(ref, force=True, recursive=True)
        return True

    def _collect(self) -> None:
        while (found := self._done.get()) is not None:
            number, future = found
            self._refs.pop(number, None)
            events = self._events
            if events is None:
                continue
            try:
                error = future.exception()
                if error is None:
                    events.ended(number, future.result())
                else:
                    self._look_at_head()
                    events.failed(number, error)
            except BaseException as failure:
                pass_signal(failure)
                events.failed(number, failure)
            del found, future

    def loss(self, error: BaseException) -> EngineLoss:
        """Return what an error of Ray's means."""
        from ray import exceptions

        cause = error.cause if is_a(error, exceptions.RayTaskError) else error
        if is_a(cause, BatchRunTwice):
            return EngineLoss(LossKind.WORKER, "its Ray worker died before the result had reached the script")
        if is_a(cause, ImportError) or "flow_core" in str(cause):
            text = f"a Ray worker has no flow_core ({one_line(cause)}): install it there, of this release"
            return EngineLoss(LossKind.EXECUTOR, text, refused=True)
        if is_a(error, exceptions.TaskCancelledError):
            return EngineLoss(LossKind.WORKER, "Ray cancelled it", cancelled=True)
        text = one_line(error)
        for kind, what in (
            (exceptions.OutOfMemoryError, "Ray ended its worker since the node ran out of memory"),
            (exceptions.NodeDiedError, "its Ray node died"),
            (exceptions.WorkerCrashedError, "its Ray worker died"),
        ):
            if is_a(error, kind):
                node = kind is exceptions.NodeDiedError
                return EngineLoss(LossKind.NODE if node else LossKind.WORKER, f"{what}: {text}")
        return EngineLoss(LossKind.EXECUTOR, f"Ray gave an error of its own: {text}")

    # -- what there is

    def refusal(self, spec: TaskSpec) -> str:
        """Return what a task asks for that no node of a block has; other clusters may grow."""
        options, wanted = self._options, spec.resources
        # Ray counts in 64 bits, and takes a greater number for none at all.
        for name, amount in (("cores", wanted.cores), ("gpus", wanted.gpus), ("MB", wanted.memory_mb), *wanted.named):
            if amount * (_MB if name == "MB" else 1) > _MOST:
                return f"it asks for {amount:g} {name}, which is more than Ray can count"
        if options.borrowed:
            return ""
        workers = options.node_workers()
        cores = workers * options.cores_per_worker
        if wanted.cores > 1 and wanted.cores > cores:
            return f"it asks for {wanted.cores:g} cores, and no node has more than {cores:g}"
        if wanted.gpus > options.gpus_per_node:
            return f"it asks for {wanted.gpus:g} gpus, and no node has more than {options.gpus_per_node}: gpus_per_node"
        if options.mem_per_worker is not None and wanted.memory_mb * _MB > workers * options.mem_per_worker * _GB:
            return (
                f"it asks for {wanted.memory_mb} MB, and no node has more than {workers * options.mem_per_worker:g} GB"
            )
        if options.mem_per_worker is None and (nodes := list(self._known.values())):
            most = max(node.memory_bytes for node in nodes)
            if 0 < most < wanted.memory_mb * _MB:
                return f"it asks for {wanted.memory_mb} MB, and no node has more than {most / _GB:.3g} GB"
        for name, amount in wanted.named:
            if amount > (options.resources or {}).get(name, 0):
                return f"it asks for {amount:g} {name}, which no node has: see option resources of RayExecutor"
        return ""

    def busy(self) -> Collection[str] | None:
        """Return the nodes of which some cores are taken."""
        from ray._private.state import available_resources_per_node

        self._check_connected()
        free = available_resources_per_node()
        cores = float(self._options.cores_per_worker)
        return [
            name
            for name, worker in self._known.items()
            if free.get(name, {}).get("CPU", 0.0) < worker.slots * cores - 1e-6
        ]

    def _check_connected(self) -> None:
        """Refuse calls of Ray without a connection, for which it would start a cluster by itself."""
        import ray

        if self._events is None or not ray.is_initialized():
            raise ExecutorError("this process is not connected to Ray any more")

    def look(self) -> None:
        """See whether the head is there, and which nodes it has."""
        self._look_at_head()
        if self._events is not None:
            self._learn_nodes()

    def _look_often(self) -> None:
        """Look for nodes more often than once a second while there are none."""
        while not self._closed.wait(_FIRST_S if not self._known else 1.0):
            if not self._known:
                with suppress(Exception):
                    self._learn_nodes()

    def _look_at_head(self) -> None:
        if self._head is not None and self._events is not None and (ended := self._head.ended()):
            self._break(f"the head of its Ray cluster is gone: {ended}")

    def _nodes(self) -> dict[str, Any] | None:
        """Return the nodes that are there; None where nobody answers. Without a head Ray waits, and ends the script."""
        import ray

        if self._events is None or not ray.is_initialized():
            return None
        told: list[Any] = []
        if within(_ANSWER_S, lambda: told.extend(ray.nodes()), f"flow-ray-nodes-{self._options.label}"):
            self._silent_since = 0.0
            return {node["NodeID"]: node for node in told if node.get("Alive")}
        self._silent_since = self._silent_since or time.monotonic() - _ANSWER_S
        silent_s = time.monotonic() - self._silent_since
        if silent_s > SILENT_S:
            self._break(f"the Ray cluster at {self._address} has not answered for {silent_s:.0f} s")
        return None

    def _break(self, text: str) -> None:
        """Tell that the cluster is gone, and disconnect: Ray ends a process a minute after it has lost its head."""
        import ray

        events, self._events = self._events, None
        if events is None:
            return
        events.broken(text)
        if self._ours:
            self._ours = False
            within(SILENT_S, ray.shutdown, f"flow-ray-leave-{self._options.label}")

    def _learn_nodes(self) -> None:
        with self._looking:
            events = self._events
            if events is None:
                return
            found = self._nodes()
            if found is None:
                return
            cores = float(self._options.cores_per_worker)
            for name, node in found.items():
                resources = node.get("Resources", {})
                slots = int(resources.get("CPU", 0) / cores + 1e-9)
                if slots and name not in self._known:
                    worker = self._worker(name, node, resources, slots)
                    self._known[name] = worker
                    events.joined(worker)
            for name in [name for name in self._known if name not in found]:
                del self._known[name]
                events.left(name, "its node is gone", lost=True)

    def _worker(self, name: str, node: Mapping[str, Any], resources: Mapping[str, float], slots: int) -> EngineWorker:
        block = next((one.removeprefix(_BLOCK) for one in resources if one.startswith(_BLOCK)), "")
        address = str(node.get("NodeManagerAddress", ""))
        here = address in self._hosts
        host = os.uname().nodename if here else str(node.get("NodeManagerHostname") or address)
        memory = resources.get("memory", 0)
        return EngineWorker(name, host, slots, block, memory_bytes=0 if math.isinf(memory) else int(memory), here=here)
