"""IPyParallelExecutor: tasks on the engines of an ipyparallel controller, one of its own or somebody's."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow_core.bounded_calls import within
from flow_core.errors import ConfigurationError, ExecutorError
from flow_core.folders import make_directory
from flow_core.guard import one_line, pass_signal
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.loss import LossKind
from flow_core.option_records import about, at_least, documented
from flow_core.remote.parcel_batch import BatchRunTwice, machine, run_batch
from flow_executors.engines.answers import SILENT_S, Answers
from flow_executors.engines.engine import Batch, Engine, EngineEvents, EngineLoss, EngineWorker, NotSent
from flow_executors.engines.executor import EngineExecutor
from flow_executors.engines.head_process import HeadProcess
from flow_executors.engines.ipp_controller import Controller
from flow_executors.errors import ControllerError
from flow_providers.interfaces.locality import Locality

if TYPE_CHECKING:
    from ipyparallel import AsyncResult, Client

_LEVELS = (0, 10, 20, 30, 40, 50, "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")
_CLIENT, _ENGINE = "ipcontroller-client.json", "ipcontroller-engine.json"
_PING_MS = 500
_ASK_S = 5.0  # seconds between an answer of the controller and the next question
_PINGS = (
    6  # missed ones after which an engine is gone; its nanny, which lives on where it is killed alone, tells at once
)
_SECRET = "flow_ipengine"
_TURN_S = 0.05
_ABOUT_S = 30.0  # seconds for an engine to say what it is


def _wrong_level(value: object) -> str:
    return "" if value is None or value in _LEVELS else f"must be one of {', '.join(map(str, _LEVELS))}"


@documented
@dataclass(eq=False, repr=False)
class IPyParallelExecutor(EngineExecutor):
    """Runs tasks on engines of an ipyparallel controller: in blocks of a provider, or in a cluster that is there.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    label: str = field(default="ipp", metadata=about("Name of the executor, unique in a Config."))
    _: KW_ONLY
    controller: Controller = field(
        default_factory=Controller, metadata=about("How the controller is started, or found.", untyped=True)
    )
    client: object | None = field(
        default=None,
        metadata=about("An ``ipyparallel.Client`` that is connected; it is used, and not closed.", untyped=True),
    )
    engine_dir: str | None = field(
        default=None,
        metadata=about(
            "Directory on the nodes for profiles and logs of engines; made if missing. None: a temporary one."
        ),
    )
    engine_debug_level: int | str | None = field(
        default=None,
        metadata=about("Level of the engines' logs: 0, 10 to 50, or its name.", _wrong_level, untyped=True),
    )
    workers_per_node: int = field(
        default=1, metadata=about("Engines of a node, each of which runs one task at a time.", at_least(1))
    )
    container_image: str | None = field(
        default=None,
        metadata=about("Image in which engines run, by ``docker``; it has ipyparallel and ``flow_core`` of its own."),
    )

    @property
    def borrowed(self) -> bool:
        """Whether the controller is somebody else's."""
        return self.client is not None or (self.controller.mode == "manual" and self.provider is None)

    @property
    def kills(self) -> bool:  # type: ignore[override]  # of each instance: engines of others may be on other machines
        """Whether a task that runs can be ended: with its engine, which is of the executor's own."""
        return not self.borrowed

    honours = HONOURED_BY_ALL

    def __post_init__(self) -> None:
        if not isinstance(self.controller, Controller):
            raise ConfigurationError(f"IPyParallelExecutor {self.label!r}: controller must be a Controller")
        if self.client is not None and not callable(getattr(self.client, "direct_view", None)):
            raise ConfigurationError(
                f"IPyParallelExecutor {self.label!r}: client={self.client!r} is no ipyparallel.Client"
            )
        super().__post_init__()

    def node_workers(self) -> int:
        """Return how many engines a node of a block has."""
        return self.workers_per_node

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        sentences = super().ineffective_options()
        if not self.borrowed:
            given = {"cores_per_worker": (self.cores_per_worker, 1.0), "mem_per_worker": (self.mem_per_worker, None)}
            sentences += [
                f"{name}={value!r} has no effect: workers_per_node says how many engines there are"
                for name, (value, usual) in given.items()
                if value != usual
            ]
        if self.borrowed:
            theirs = {
                "engine_dir": self.engine_dir,
                "engine_debug_level": self.engine_debug_level,
                "container_image": self.container_image,
            }
            sentences += [
                f"{name}={value!r} has no effect: engines are somebody else's"
                for name, value in theirs.items()
                if value
            ]
        elif self.max_workers != math.inf:
            sentences.append(
                f"max_workers={self.max_workers!r} has no effect: workers_per_node says how many engines there are"
            )
        return sentences

    def _engine(self, context: RunContext) -> Engine:
        try:
            import ipyparallel  # noqa: F401  # asked for here, so that the error says what to do
        except ImportError as error:
            raise ExecutorError(
                f"executor {self.label!r} needs ipyparallel ({one_line(error)}): pip install ipyparallel"
            ) from error
        return IPyParallelEngine(self, context)


@dataclass(slots=True)
class _Worker:
    worker: EngineWorker
    out: set[int]


class IPyParallelEngine(Engine):
    """One controller, as one started executor has it. Each batch goes to one engine, which is chosen here."""

    name = "ipyparallel"
    alone = True

    def __init__(self, options: IPyParallelExecutor, context: RunContext) -> None:
        self._options = options
        self._context = context
        self._log = context.logger
        self.elastic = False
        self._events: EngineEvents | None = None
        self._client: Client | None = None
        self._head: HeadProcess | None = None
        self._lock = threading.Lock()
        self._engines: dict[int, _Worker] = {}
        self._asked: dict[int, AsyncResult] = {}
        self._unfit: dict[int, str] = {}
        self._futures: dict[int, tuple[AsyncResult, int]] = {}
        self._security = b""
        self._stop = threading.Event()
        self._machine = machine()
        self._answers = Answers(self._ask, f"flow-ipp-look-{options.label}", _ASK_S)
        self._thread = threading.Thread(target=self._watch, name=f"flow-ipp-{options.label}", daemon=True)

    # -- begin and end

    def open(self, events: EngineEvents, timeout_s: float) -> None:
        """Start a controller here, or connect to one. Raises ControllerError."""
        from ipyparallel import Client

        self._events = events
        controller = self._options.controller
        try:
            if self._options.client is not None:
                self._client = self._options.client
                self._thread.start()
                return
            if controller.mode == "auto":
                client_file = self._start_controller(timeout_s)
            else:
                client_file = controller.file(_CLIENT)
                if not client_file.exists():
                    raise ControllerError(
                        f"executor {self._options.label!r}: no controller is there: {client_file} does not exist. "
                        "Start one by ipcontroller, or leave out mode='manual'"
                    )
                if not self._options.borrowed:
                    self._security = controller.file(_ENGINE).read_bytes()
            self._client = Client(str(client_file), timeout=timeout_s)
        except BaseException as error:
            self.close(5.0)
            if isinstance(error, ExecutorError) or not isinstance(error, Exception):
                raise
            raise ControllerError(
                f"executor {self._options.label!r}: the ipyparallel controller cannot be used: {one_line(error)}"
            ) from error
        self._thread.start()

    def _start_controller(self, timeout_s: float) -> Path:
        options, controller = self._options, self._options.controller
        home = controller.home(self._context.executor_dir)
        security = home / "security"
        make_directory(security, 0o700)
        if not controller.reuse:
            for name in (_CLIENT, _ENGINE):
                with suppress(OSError):
                    (security / name).unlink()
        here = options.provider is None or options.provider.locality is Locality.THIS_MACHINE
        command = [
            *(sys.executable, "-m", "ipyparallel.controller", f"--profile-dir={home}", "--nodb"),
            f"--HeartMonitor.period={_PING_MS}",
            f"--HeartMonitor.max_heartmonitor_misses={_PINGS}",
            *controller.words(here),
        ]
        before = {name: _stamp(security / name) for name in (_CLIENT, _ENGINE)}
        self._head = HeadProcess(command, self._context.executor_dir / "controller.log")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if ended := self._head.ended():
                raise ControllerError(f"executor {options.label!r}: its ipyparallel controller did not start: {ended}")
            if all(_stamp(security / name) not in (0, before[name] if not controller.reuse else 0) for name in before):
                with suppress(OSError, ValueError):
                    self._security = (security / _ENGINE).read_bytes()
                    json.loads(self._security)
                    json.loads((security / _CLIENT).read_bytes())
                    return security / _CLIENT
            time.sleep(0.02)
        raise ControllerError(
            f"executor {options.label!r}: its ipyparallel controller did not start within {timeout_s:g} s: "
            f"{self._head.tail()}"
        )

    def close(self, timeout_s: float) -> Sequence[str]:
        """Disconnect; end the controller if it is the executor's own, and with it its engines."""
        self._stop.set()
        self._events = None
        forced: list[str] = []
        client, self._client = self._client, None
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2.0)
        if client is not None:
            own, engines = not self._options.borrowed, list(self._engines)

            def end() -> None:
                """Have the executor's own engines end, and let go of the connection."""
                if own and engines:
                    with suppress(Exception):
                        client.shutdown(engines, hub=False, block=False)
                if self._options.client is None:
                    client.close(linger=500)

            if not within(max(0.5, timeout_s / 2), end, f"flow-ipp-close-{self._options.label}"):
                forced.append(f"the ipyparallel client of {self._options.label} did not close in time")
        if self._head is not None and (text := self._head.end(max(0.5, timeout_s / 2))):
            forced.append(text)
        if self._head is not None and not self._options.controller.reuse:
            security = self._options.controller.home(self._context.executor_dir) / "security"
            for name in (_CLIENT, _ENGINE):  # they hold the key
                with suppress(OSError):
                    (security / name).unlink()
        return forced

    # -- blocks

    def worker_command(self, block: str) -> str:
        """Return the command of a block's engines."""
        options = self._options
        folder = '"$d"' if options.engine_dir is None else shlex.quote(options.engine_dir)
        level = {"WARN": "30"}.get(str(options.engine_debug_level), str(options.engine_debug_level))
        python = [shlex.quote(options._python())]
        if options.container_image is not None:
            secret = f"FLOW_SECRET_{_SECRET.upper()}"
            # Its network is the node's; its files are the node's where tasks look for theirs.
            python = [
                *("docker run --rm --init --network host --ipc host -e FLOW_ENGINE_BLOCK -e", secret),
                *("-v", f'"${secret}:${secret}:ro"', "-v", '"$d:$d"', "-v", '"$PWD:$PWD"', "-w", '"$PWD"'),
                *(shlex.quote(options.container_image), options.python or "python3"),
            ]
        words = [
            *python,
            *("-m", "ipyparallel.engine", f'--file="$FLOW_SECRET_{_SECRET.upper()}"', "--timeout=60"),
            f"--IPEngine.max_heartbeat_misses={60}",
            *((f"--log-level={level}",) if options.engine_debug_level is not None else ()),
        ]
        line = " ".join(words)
        number = options.node_workers()
        make = (
            'd=$(mktemp -d "${TMPDIR:-/tmp}/flow-ipengine-XXXXXX")'
            if options.engine_dir is None
            else f"mkdir -p {folder} && d={folder}"
        )
        clean = 'rm -rf "$d"' if options.engine_dir is None else ":"
        return "\n".join(
            (
                f"cd {shlex.quote(os.getcwd())} 2>/dev/null",
                make,
                f"export FLOW_ENGINE_BLOCK={shlex.quote(block)}",
                "trap 'kill $(jobs -p) 2>/dev/null' TERM INT HUP",
                # One that dies is made anew: tasks may kill their engine. One that has lost its controller is not.
                f'one() {{ mkdir -p "$d/$1"; while {line} --profile-dir="$d/$1"; [ $? -gt 128 ]; do :; done; }}',
                f"for n in $(seq {number}); do one $n & done",
                f"wait; {clean}",
            )
        )

    def secrets(self) -> Sequence[tuple[str, bytes]]:
        """Return what engines need to connect, with its key."""
        return ((_SECRET, self._security),)

    # -- batches

    def submit(self, batch: Batch) -> None:
        """Give a batch to the engine that has least to do."""
        client = self._client
        there = set(client.ids) if client is not None else set()
        with self._lock:
            fitting = [(len(one.out), number, one) for number, one in self._engines.items() if number in there]
            if client is None or not fitting:
                raise NotSent
            _, number, chosen = min(fitting, key=lambda one: one[:2])
            chosen.out.add(batch.number)
        try:
            view = client.direct_view(number)
            future = view.apply_async(run_batch, list(batch.parcels), batch.journal, alone=True)
        except BaseException as error:
            with self._lock:
                chosen.out.discard(batch.number)
            if number not in client.ids:  # it has gone just now
                raise NotSent from error
            raise
        with self._lock:
            self._futures[batch.number] = (future, number)
        future.add_done_callback(partial(self._done, batch.number))

    def _done(self, number: int, future: Any) -> None:
        with self._lock:
            _, engine = self._futures.pop(number, (None, -1))
            known = self._engines.get(engine)
            if known is not None:
                known.out.discard(number)
        events = self._events
        if events is None:
            return
        try:
            error = future.exception()
            results: Any = None if error is not None else future.result()
        except BaseException as failure:
            pass_signal(failure)
            error, results = failure, None
        if error is not None:
            name = known.worker.name if known is not None else ""
            node = known.worker.node if known is not None else ""
            events.failed(number, _Error(error, name, node))
        else:
            events.ended(number, results[0] if len(results) == 1 and isinstance(results[0], list) else results)

    def cancel(self, number: int) -> bool | None:
        """Take a batch back that waits at its engine; the engine does not say whether it had begun with it."""
        with self._lock:
            future, engine = self._futures.get(number, (None, -1))
            known = self._engines.get(engine)
            waits = known is not None and len(known.out) > 1
        client = self._client
        if future is not None and client is not None and waits:
            with suppress(Exception):
                client.abort(future, targets=engine, block=False)
        return None  # its future tells

    def kill(self, number: int, pid: int) -> bool:
        """End a batch with its engine, which its block starts again."""
        with self._lock:
            _, engine = self._futures.get(number, (None, -1))
            known = self._engines.get(engine)
        client = self._client
        if known is None or client is None or self._options.borrowed:
            return False
        if known.worker.here:
            with suppress(OSError):
                os.kill(known.worker.pid, signal.SIGKILL)
        else:
            client.send_signal(int(signal.SIGKILL), targets=engine, block=False)  # its nanny does it
        return True

    def loss(self, error: BaseException) -> EngineLoss:
        """Return what an error of ipyparallel's means."""
        worker, node, cause = "", "", error
        if isinstance(error, _Error):
            cause, worker, node = error.error, error.worker, error.node
        name, text = str(getattr(cause, "ename", type(cause).__name__)), one_line(cause)
        if name == "EngineError":
            return EngineLoss(
                LossKind.WORKER, "its ipyparallel engine died while it had the task", worker=worker, node=node
            )
        if name == BatchRunTwice.__name__:
            return EngineLoss(LossKind.WORKER, "its engine died before the result had reached the script")
        if name in ("ModuleNotFoundError", "ImportError") and "flow_core" in text:
            return EngineLoss(
                LossKind.EXECUTOR,
                f"an engine has no flow_core ({text}): install it there, of this release",
                refused=True,
            )
        cancelled = name in ("TaskAborted", "CancelledError")
        return EngineLoss(
            LossKind.EXECUTOR, f"ipyparallel gave an error of its own: {name}: {text}", cancelled=cancelled
        )

    def why(self, spec: object) -> str:
        """Say which engines cannot be used."""
        with self._lock:
            unfit = list(self._unfit.values())
        return unfit[0] if unfit else ""

    # -- what there is

    def _watch(self) -> None:
        """Look which engines are there; they are told as soon as they have said what they are."""
        while not self._stop.wait(_TURN_S):
            try:
                self._look_at_engines()
            except BaseException as error:
                pass_signal(error)
                self._log.warning("%s: %s", self._options.label, one_line(error))

    def look(self) -> None:
        """Look whether the controller is there."""
        events = self._events
        if self._head is not None and events is not None and (ended := self._head.ended()):
            events.broken(f"its ipyparallel controller is gone: {ended}")
        elif events is not None and (silent_s := self._answers.silent_s()) > SILENT_S:
            events.broken(f"the ipyparallel controller has not answered for {silent_s:.0f} s")

    def _ask(self) -> None:
        client = self._client
        if client is not None:
            client.queue_status()

    def _look_at_engines(self) -> None:
        client, events = self._client, self._events
        if client is None or events is None:
            return
        there = set(client.ids)
        with self._lock:
            known, asked = set(self._engines), set(self._asked)
        for number in known - there:
            with self._lock:
                gone = self._engines.pop(number)
            events.left(gone.worker.name, "its ipyparallel engine is gone", lost=True)
        with self._lock:
            for number in [one for one in self._unfit if one not in there]:
                del self._unfit[number]
        for number in asked - there:
            self._asked.pop(number, None)
        for number in there - known - asked - set(self._unfit):
            self._asked[number] = client.direct_view(number).apply_async(about_engine)
        for number, future in list(self._asked.items()):
            if future.done():
                del self._asked[number]
                self._met(number, future)

    def _met(self, number: int, future: Any) -> None:
        try:
            found = future.result()
            found = found[0] if isinstance(found, list) else found
        except BaseException as error:
            pass_signal(error)
            if "EngineError" not in type(error).__name__:
                text = f"engine {number} cannot run tasks: {one_line(error)}. It needs flow_core, of this release"
                self._log.warning("%s: %s", self._options.label, text)
                with self._lock:
                    self._unfit[number] = text
            return
        if found["python"].rpartition(".")[0] != "{}.{}".format(*sys.version_info[:2]):
            text = (
                f"engine {number} on {found['node']} has Python {found['python']}, and the script "
                f"{sys.version_info[0]}.{sys.version_info[1]}: both must be of the same release"
            )
            self._log.warning("%s: %s", self._options.label, text)
            with self._lock:
                self._unfit[number] = text
            return
        worker = EngineWorker(
            f"engine-{number}-{found['node']}-{found['pid']}",
            found["node"],
            1,
            found["block"],
            found["pid"],
            found["cpus"],
            0,
            found["python"],
            bool(self._machine) and found["machine"] == self._machine,
        )
        with self._lock:
            self._engines[number] = _Worker(worker, set())
        if self._events is not None:
            self._events.joined(worker)

    def busy(self) -> Collection[str] | None:
        """Return the names of engines that have something to do."""
        with self._lock:
            return {one.worker.name for one in self._engines.values() if one.out}

    def retire(self, workers: Collection[str]) -> None:
        """Have engines end that have nothing to do."""
        with self._lock:
            numbers = [number for number, one in self._engines.items() if one.worker.name in workers and not one.out]
            for number in numbers:
                del self._engines[number]
        client = self._client
        if numbers and client is not None:
            client.shutdown(numbers, hub=False, block=False)


class _Error(Exception):
    def __init__(self, error: BaseException, worker: str, node: str) -> None:
        super().__init__(str(error))
        self.error, self.worker, self.node = error, worker, node


def about_engine() -> dict[str, Any]:
    """Return what the process is that calls this: an engine."""
    from flow_core.remote.parcel_batch import machine as machine_here

    return {
        "node": socket.gethostname(),
        "pid": os.getpid(),
        "block": os.environ.get("FLOW_ENGINE_BLOCK", ""),
        "cpus": os.cpu_count() or 0,
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "machine": machine_here(),
    }


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
