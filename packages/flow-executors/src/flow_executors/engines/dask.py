"""DaskExecutor: tasks on a Dask cluster (``distributed``), one of its own or somebody's."""

from __future__ import annotations

import math
import os
import shlex
import socket
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from flow_core.bounded_calls import within
from flow_core.errors import ConfigurationError, ExecutorError
from flow_core.folders import make_directory
from flow_core.guard import is_a, one_line, pass_signal
from flow_core.interfaces.call import TaskSpec
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.loss import LossKind
from flow_core.option_records import about, documented
from flow_core.remote.parcel_batch import BatchRunTwice, run_batch
from flow_executors.engines.answers import SILENT_S, Answers
from flow_executors.engines.engine import Batch, Engine, EngineEvents, EngineLoss, EngineWorker
from flow_executors.engines.executor import EngineExecutor, wrong_resources
from flow_executors.engines.head_process import HeadProcess
from flow_executors.engines.own_addresses import own_addresses
from flow_providers.interfaces.locality import Locality

if TYPE_CHECKING:
    from distributed import Future

_LARGE = 1 << 20  # bytes of a batch that go by the object store of the workers, and not through the scheduler
_CALL_S = 5.0  # seconds for a call of the scheduler
_GB = 1e9
_NAMES = {"gpus": "GPU"}  # what Dask's own documentation calls them; all others go by Flow's names


@documented
@dataclass(eq=False, repr=False)
class DaskExecutor(EngineExecutor):
    """Runs tasks on a Dask cluster: workers in blocks of a provider, or a cluster that is there.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    honours = HONOURED_BY_ALL.union(("cores", "memory", "gpus", "named", "priority"))
    label: str = field(default="dask", metadata=about("Name of the executor, unique in a Config."))
    _: KW_ONLY
    address: str | None = field(
        default=None,
        metadata=about(
            "Address of a scheduler that runs already, such as ``tcp://10.0.0.1:8786``; with this or ``client`` the "
            "cluster is somebody else's, and stays."
        ),
    )
    client: object | None = field(
        default=None,
        metadata=about("A ``distributed.Client`` that is connected; it is used, and not closed.", untyped=True),
    )
    security: object | None = field(
        default=None,
        metadata=about("A ``distributed.Security`` for ``address``; a cluster of its own makes one.", untyped=True),
    )
    host: str | None = field(
        default=None,
        metadata=about(
            "Name or address of this machine at which workers of blocks reach the scheduler. None: ``127.0.0.1`` where "
            "blocks are on this machine, else its host name."
        ),
    )
    available_accelerators: int | Sequence[str] = field(
        default=(),
        metadata=about(
            "Names of a node's accelerators, or their number: one for each worker, which sees it alone "
            "(``CUDA_VISIBLE_DEVICES``)."
        ),
    )
    resources: Mapping[str, float] | None = field(
        default=None,
        metadata=about("Further resources of each worker, by name: tasks ask for them in ``named``.", wrong_resources),
    )

    @property
    def kills(self) -> bool:  # type: ignore[override]  # of each instance: workers of others may have no nanny
        """Whether a task that runs can be ended: with its worker, which is of the executor's own and runs one."""
        return not self.borrowed

    @property
    def borrowed(self) -> bool:
        """Whether the cluster is somebody else's."""
        return self.address is not None or self.client is not None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = f"DaskExecutor {self.label!r}"
        if self.address is not None and self.client is not None:
            raise ConfigurationError(f"{name}: address and client both name a cluster: give one")
        if self.client is not None and not callable(getattr(self.client, "submit", None)):
            raise ConfigurationError(f"{name}: client={self.client!r} is no distributed.Client")

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        sentences = super().ineffective_options()
        if self.borrowed:
            given = {
                "host": self.host,
                "available_accelerators": self.available_accelerators,
                "resources": self.resources,
            }
            sentences += [
                f"{one}={value!r} has no effect: its cluster has workers of its own"
                for one, value in given.items()
                if value
            ]
        if self.security is not None and self.address is None:
            sentences.append("security has no effect without address")
        return sentences

    def node_workers(self) -> int:
        """Return how many workers a node of a block has."""
        accelerators = self._accelerators()
        most = super().node_workers()
        return min(most, len(accelerators)) if accelerators else most

    def _accelerators(self) -> tuple[str, ...]:
        given = self.available_accelerators
        return tuple(map(str, range(given))) if isinstance(given, int) else tuple(given)

    def _engine(self, context: RunContext) -> Engine:
        try:
            import distributed  # noqa: F401  # asked for here, so that the error says what to do
        except ImportError as error:
            raise ExecutorError(
                f"executor {self.label!r} needs Dask ({one_line(error)}): pip install distributed cryptography"
            ) from error
        return DaskEngine(self, context)

    def _worker_resources(self) -> dict[str, float]:
        """Return what each worker of a block has, by Dask's names."""
        found: dict[str, float] = {"cores": float(self.cores_per_worker)}
        if self.mem_per_worker is not None:
            found["memory"] = self.mem_per_worker * _GB / (1 << 20)
        if self._accelerators():
            found[_NAMES["gpus"]] = 1.0
        return {**found, **{name: float(amount) for name, amount in (self.resources or {}).items()}}


class DaskEngine(Engine):
    """One Dask cluster, as one started executor has it."""

    name = "Dask"

    def __init__(self, options: DaskExecutor, context: RunContext) -> None:
        self._options = options
        self._context = context
        self._log = context.logger
        self.alone = not options.borrowed
        self.elastic = options.borrowed
        self._events: EngineEvents | None = None
        self._client: Any = None
        self._head: HeadProcess | None = None
        self._address = ""
        self._host = "127.0.0.1"
        self._pem: dict[str, bytes] = {}
        self._prefix = f"flow-{os.getpid()}-{time.time_ns():x}"
        self._futures: dict[int, Future] = {}
        self._done: SimpleQueue[int | None] = SimpleQueue()
        self._known: dict[str, EngineWorker] = {}
        self._declared: set[str] = set()
        self._most: dict[str, float] = {}
        self._refresh = threading.Event()
        self._away_since = 0.0
        self._replaced: set[str] = set()  # workers of one thread that somebody starts again when they end
        self._hosts = own_addresses()
        self._answers = Answers(self._learn_workers, f"flow-dask-look-{options.label}")
        self._thread = threading.Thread(target=self._collect, name=f"flow-dask-{options.label}", daemon=True)

    # -- begin and end

    def open(self, events: EngineEvents, timeout_s: float) -> None:
        """Start a scheduler here, or connect to one. Raises ExecutorError."""
        from distributed import Client

        self._events = events
        options = self._options
        try:
            if options.client is not None:
                self._client = options.client
            else:
                security = options.security
                if options.address is None:
                    security = self._start_scheduler(timeout_s)
                else:
                    self._address = options.address
                self._client = Client(
                    self._address,
                    timeout=timeout_s,
                    set_as_default=False,
                    security=security,
                    name=f"flow-{options.label}",
                )
            client = self._client
            if not options.borrowed:
                self._most = options._worker_resources()
                self._declared = set(self._most)
            client.subscribe_topic("all", self._told)
            self._learn_workers()
        except BaseException as error:
            self.close(5.0)
            if isinstance(error, ExecutorError) or not isinstance(error, Exception):
                raise
            where = self._address or "its client"
            raise ExecutorError(
                f"executor {options.label!r}: the Dask scheduler at {where} cannot be used: {one_line(error)}"
            ) from error
        self._thread.start()

    def _start_scheduler(self, timeout_s: float) -> object:
        """Start a scheduler below this process; return how to talk to it."""
        import sys

        from distributed import Security

        provider, directory = self._options.provider, self._context.executor_dir
        here = provider is None or provider.locality is Locality.THIS_MACHINE
        self._host = self._options.host or ("127.0.0.1" if here else socket.gethostname())
        # Whoever reaches a scheduler runs code as its user: so nobody does without a certificate that was made for it.
        security = Security.temporary()
        self._pem = {
            name: getattr(security, f"tls_client_{name}" if name != "ca" else "tls_ca_file").encode()
            for name in ("ca", "cert", "key")
        }
        keys = directory / "tls"
        make_directory(keys, 0o700)
        files = {name: _written(keys / f"{name}.pem", text) for name, text in self._pem.items()}
        where = directory / "scheduler.json"
        with suppress(OSError):
            where.unlink()
        self._head = HeadProcess(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_scheduler",
                *("--host", self._host, "--port", "0", "--protocol", "tls", "--no-dashboard"),
                # Without a dashboard, too, it serves its state by http: to this machine alone.
                *("--dashboard-address", "127.0.0.1:0"),
                *("--scheduler-file", str(where)),
                *_tls(files),
            ],
            directory / "scheduler.log",
            # Flow counts tries: a worker that dies takes its task along.
            {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"},
        )
        self._address = self._scheduler_address(where, timeout_s)
        return security

    def _scheduler_address(self, where: Path, timeout_s: float) -> str:
        import json

        assert self._head is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError, KeyError):
                return str(json.loads(where.read_text())["address"])
            if ended := self._head.ended():
                raise ExecutorError(f"executor {self._options.label!r}: its Dask scheduler did not start: {ended}")
            time.sleep(0.02)
        raise ExecutorError(
            f"executor {self._options.label!r}: its Dask scheduler did not start within {timeout_s:g} s: "
            f"{self._head.tail()}"
        )

    def close(self, timeout_s: float) -> Sequence[str]:
        """Disconnect; end the scheduler if it is the executor's own, and with it its workers."""
        forced: list[str] = []
        events, self._events = self._events, None
        self._done.put(None)
        client, self._client = self._client, None
        borrowed = self._options.client is not None
        if client is not None:
            futures, label = list(self._futures.values()), self._options.label
            self._futures.clear()

            def end() -> None:
                """Let go of what is left, and of the connection."""
                with suppress(Exception):
                    client.unsubscribe_topic("all")
                if self._options.borrowed and futures:
                    with suppress(Exception):
                        client.cancel(futures)
                if not borrowed:
                    if self._head is not None:
                        with suppress(Exception):
                            client.retire_workers(close_workers=True)
                    client.close(timeout=max(0.5, timeout_s / 3))

            if not within(max(0.5, timeout_s / 2), end, f"flow-dask-close-{label}"):
                forced.append(f"the Dask client of {label} did not close in time")
        if self._head is not None and (text := self._head.end(max(0.5, timeout_s / 2))):
            forced.append(text)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        for name in self._pem:
            with suppress(OSError):
                (self._context.executor_dir / "tls" / f"{name}.pem").unlink()
        with suppress(OSError):
            (self._context.executor_dir / "tls").rmdir()
        del events
        return forced

    # -- blocks

    def worker_command(self, block: str) -> str:
        """Return the command of a block's workers."""
        options = self._options
        number, accelerators = options.node_workers(), options._accelerators()
        files = {name: f'"$FLOW_SECRET_FLOW_DASK_{name.upper()}"' for name in ("ca", "cert", "key")}
        resources = " ".join(f"{name}={amount:g}" for name, amount in options._worker_resources().items())
        memory = "0" if options.mem_per_worker is None else str(int(options.mem_per_worker * _GB))
        words = [
            *map(shlex.quote, (options._python(), "-m", "distributed.cli.dask_worker", self._address)),
            *("--nthreads", "1", "--nanny", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
            *("--memory-limit", memory),
            # One that has lost its scheduler, or never finds it, ends, and with it its block.
            *("--death-timeout", "60"),
            *("--name", f'"{self._prefix}.{block}.$(uname -n).$$"'),
            *("--local-directory", '"${TMPDIR:-/tmp}"'),
            *("--resources", shlex.quote(resources)),
            *("--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"]),
        ]
        if self._host == "127.0.0.1":
            words += ["--host", "127.0.0.1"]
        line = " ".join(words)
        enter = f"cd {shlex.quote(os.getcwd())} 2>/dev/null"
        quiet = "export DASK_LOGGING__DISTRIBUTED=warning"
        if not accelerators:
            return f"{enter}\n{quiet}\nexec {line} --nworkers {number}"
        each = [
            f"CUDA_VISIBLE_DEVICES={shlex.quote(one)} {line.replace('.$$', f'.$$.{place}')} --nworkers 1 &"
            for place, one in enumerate(accelerators[:number])
        ]
        return "\n".join([enter, quiet, *each, "wait"])

    def secrets(self) -> Sequence[tuple[str, bytes]]:
        """Return the certificate of the cluster, and its key."""
        return [(f"flow_dask_{name}", text) for name, text in self._pem.items()]

    # -- batches

    def submit(self, batch: Batch) -> None:
        """Give a batch to the scheduler."""
        client = self._connected()
        parcels: Any = list(batch.parcels)
        if sum(map(len, parcels)) >= _LARGE and self._known:
            # The scheduler is one process, and holds what tasks are made of until they end.
            parcels = client.scatter(parcels, hash=False, timeout=_CALL_S)
        future = client.submit(
            run_batch,
            parcels,
            batch.journal,
            alone=self.alone,
            key=f"{self._prefix}-{batch.number}",
            pure=False,
            retries=0,
            priority=batch.spec.priority,
            resources=_asked(batch.spec) or None,
        )
        self._futures[batch.number] = future
        client.loop.add_callback(self._wait_for, batch.number, future)

    async def _wait_for(self, number: int, future: Future) -> None:
        """Note that a future is done. Its own callbacks need threads, which there are none of as a script ends."""
        await future._state.wait()
        self._done.put(number)

    def cancel(self, number: int) -> bool | None:
        """Take a batch back that no worker has; Dask does not say whether one that a worker has is under way."""
        future = self._futures.get(number)
        if future is None:
            return None
        client = self._connected()
        if self._worker_of(future.key) is None:
            client.cancel([future], reason="cancelled by Flow")
        return None  # its future tells

    def kill(self, number: int, pid: int) -> bool:
        """End a batch with its worker, which a nanny starts again."""
        future = self._futures.get(number)
        if future is None:
            return False
        client = self._connected()
        worker = self._worker_of(future.key)
        # A worker of several threads runs other tasks, and one without a nanny would not come again.
        if worker is None or worker not in self._replaced:
            return False
        self._log.info("Dask worker %s is ended, since a task that it runs is to be killed", worker)
        client.restart_workers([worker], timeout=_CALL_S, raise_for_error=False)
        return True

    def _worker_of(self, key: object) -> str | None:
        """Return the worker that has a task."""
        for worker, keys in self._connected().processing().items():
            if key in keys:
                return str(worker)
        return None

    def _collect(self) -> None:
        """Fetch results as they come, many at a time."""
        while (number := self._done.get()) is not None:
            numbers = [number]
            with suppress(Empty):
                while len(numbers) < 100:
                    if (other := self._done.get_nowait()) is None:
                        self._done.put(None)
                        break
                    numbers.append(other)
            try:
                self._fetch(numbers)
            except BaseException as error:
                pass_signal(error)
                for one in numbers:
                    self._failed(one, error)

    def _fetch(self, numbers: Sequence[int]) -> None:
        client, events = self._client, self._events
        if client is None or events is None:
            return
        found = {number: future for number in numbers if (future := self._futures.pop(number, None)) is not None}
        well = {number: future for number, future in found.items() if future.status == "finished"}
        for number, future in found.items():
            if number not in well:
                self._failed(number, _error_of(future))
        if not well:
            return
        try:
            results = client.gather(list(well.values()))
        except Exception:
            # One of them is gone with its worker: each by itself, so that the others are not.
            for number, future in well.items():
                try:
                    events.ended(number, future.result(timeout=_CALL_S))
                except Exception as error:
                    self._failed(number, error)
            return
        for number, result in zip(well, results, strict=True):
            events.ended(number, result)

    def _failed(self, number: int, error: BaseException) -> None:
        if self._events is not None:
            self._look_at_head()
            self._events.failed(number, error)

    def loss(self, error: BaseException) -> EngineLoss:
        """Return what an error of Dask's means."""
        from distributed.scheduler import KilledWorker

        if is_a(error, KilledWorker):
            worker = error.last_worker
            host = str(getattr(worker, "host", ""))
            text = f"Dask worker {worker.address} died while it had the task"
            return EngineLoss(LossKind.WORKER, text, worker=str(worker.address), node=host)
        if is_a(error, BatchRunTwice):
            return EngineLoss(LossKind.WORKER, "its Dask worker died before the result had reached the script")
        if is_a(error, ImportError) and "flow_core" in str(error):
            return EngineLoss(
                LossKind.EXECUTOR,
                f"a Dask worker has no flow_core ({one_line(error)}): install it there, of this release",
                refused=True,
            )
        cancelled = type(error).__name__ in ("FutureCancelledError", "CancelledError")
        return EngineLoss(LossKind.EXECUTOR, f"Dask gave an error of its own: {one_line(error)}", cancelled=cancelled)

    # -- what there is

    def refusal(self, spec: TaskSpec) -> str:
        """Return what a task asks for that no worker has."""
        asked = _asked(spec)
        for name, amount in asked.items():
            if name not in self._declared:
                if self._options.borrowed:
                    known = ", ".join(sorted(self._declared)) or "none"
                    return (
                        f"no Dask worker declares the resource {name!r} (declared: {known}); start workers with "
                        f"--resources '{name}={amount:g}'"
                    )
                option = {"memory": "mem_per_worker", "GPU": "available_accelerators"}.get(name, "resources")
                return f"it asks for {name}, and workers are given none: see option {option} of DaskExecutor"
            if amount > self._most.get(name, math.inf):
                return f"it asks for {amount:g} {name}, and no worker has more than {self._most[name]:g}"
        return ""

    def busy(self) -> Collection[str] | None:
        """Return the workers that have tasks."""
        return [str(worker) for worker, keys in self._connected().processing().items() if keys]

    def retire(self, workers: Collection[str]) -> None:
        """Have workers leave in order."""
        self._connected().retire_workers(list(workers), close_workers=True)

    def look(self) -> None:
        """See whether the scheduler is there, and which workers it has."""
        self._look_at_head()
        client, events = self._client, self._events
        if client is None or events is None:
            return
        if client.status != "running":
            self._away_since = self._away_since or time.monotonic()
            away_s = time.monotonic() - self._away_since
            if client.status == "closed" or away_s > SILENT_S:
                events.broken(f"the Dask scheduler at {self._address or 'its client'} is gone (for {away_s:.0f} s)")
            return
        self._away_since = 0.0
        if (silent_s := self._answers.silent_s()) > SILENT_S:
            where = self._address or "its client"
            events.broken(f"the Dask scheduler at {where} has not answered for {silent_s:.0f} s")

    def _look_at_head(self) -> None:
        if self._head is not None and self._events is not None and (ended := self._head.ended()):
            self._events.broken(f"its Dask scheduler is gone: {ended}")

    def _told(self, event: tuple[float, Any]) -> None:
        """Take an event of the scheduler. On the client's own thread."""
        message = event[1] if isinstance(event, tuple) and len(event) == 2 else None
        action = message.get("action") if isinstance(message, dict) else None
        if action == "remove-worker":
            expected = bool(message.get("expected"))
            self._gone(str(message.get("worker")), "it left in order" if expected else "it died", lost=not expected)
        elif action == "add-worker":
            self._refresh.set()
            threading.Thread(target=self._learn_soon, name="flow-dask-worker", daemon=True).start()

    def _learn_soon(self) -> None:
        # Several that come together are learnt of together.
        if self._refresh.is_set():
            self._refresh.clear()
            with suppress(Exception):
                self._learn_workers()

    def _learn_workers(self) -> None:
        client, events = self._client, self._events
        if client is None or events is None:
            return
        told = client.scheduler_info(n_workers=-1)["workers"]
        for address, worker in told.items():
            made = self._worker(str(address), worker)
            if self._known.get(made.name) != made:
                self._known[made.name] = made
                events.joined(made)
        for name in [name for name in self._known if name not in told]:
            self._gone(name, "the scheduler has it no more", lost=True)
        self._replaced = {
            str(address) for address, worker in told.items() if worker.get("nthreads") == 1 and worker.get("nanny")
        }
        if self._options.borrowed:
            self.alone = bool(told) and all(worker.get("nthreads") == 1 for worker in told.values())
            self._declared = {name for worker in told.values() for name in worker.get("resources") or {}}
            self._most = {
                name: max(float((worker.get("resources") or {}).get(name, 0)) for worker in told.values())
                for name in self._declared
            }

    def _gone(self, address: str, reason: str, *, lost: bool) -> None:
        if self._known.pop(address, None) is not None and self._events is not None:
            self._events.left(address, reason, lost=lost)

    def _worker(self, address: str, told: Mapping[str, Any]) -> EngineWorker:
        name = str(told.get("name", ""))
        block = name.split(".")[1] if name.startswith(f"{self._prefix}.") and name.count(".") >= 2 else ""
        host = str(told.get("host", ""))
        here = host in self._hosts
        return EngineWorker(
            address,
            os.uname().nodename if here else host,
            int(told.get("nthreads", 1)),
            block,
            memory_bytes=int(told.get("memory_limit") or 0),
            here=here,
        )

    def _connected(self) -> Any:
        if self._client is None:
            raise ExecutorError("the Dask client is closed")
        return self._client


def _asked(spec: TaskSpec) -> dict[str, float]:
    """Return what a task asks for beyond a slot, by Dask's names of resources."""
    wanted = spec.resources
    asked = {"cores": wanted.cores if wanted.cores > 1 else 0.0, "memory": float(wanted.memory_mb), "gpus": wanted.gpus}
    found = {_NAMES.get(name, name): amount for name, amount in asked.items() if amount}
    return {**found, **{name: amount for name, amount in wanted.named if amount}}


def _tls(files: Mapping[str, str]) -> list[str]:
    return ["--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"]]


def _written(path: Path, text: bytes) -> str:
    """Write what only this user may read; return its path."""
    with suppress(OSError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    return str(path)


def _error_of(future: Future) -> BaseException:
    """Return why a future has no result."""
    error = future._state.exception  # asked in the client itself: exception() would wait for what never comes
    if isinstance(error, BaseException):
        return error
    from concurrent.futures import CancelledError

    return CancelledError(f"its Dask future is {future.status}")
