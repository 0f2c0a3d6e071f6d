"""What executors on Work Queue and TaskVine have in common: the engine of both, whose workers share nothing with us.

The library itself runs in a process below the script (``cctools_manager``). Each batch is one task of the library: a
command in a sandbox of a worker, which runs an archive of ``flow_core`` that the library brings there and keeps.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import secrets
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow_core.errors import ExecutorError, StagingError
from flow_core.folders import make_directory
from flow_core.guard import is_a, one_line, pass_signal
from flow_core.interfaces.call import TaskSpec
from flow_core.interfaces.context import RunContext
from flow_core.loss import LossKind
from flow_core.remote import sandbox
from flow_core.remote.script_files import FilesByConnection
from flow_executors.client.declared_files import Arrival, Listing
from flow_executors.client.file_service import current_umask
from flow_executors.engines import cctools_manager
from flow_executors.engines.cctools_log_core import LogEvent, TaskSent, TransactionLog, WorkerGone, WorkerHas
from flow_executors.engines.engine import Batch, Engine, EngineEvents, EngineLoss, EngineWorker
from flow_executors.engines.head_process import HeadProcess
from flow_executors.engines.leaf_archive import write_archive
from flow_executors.wire.files import DIGEST_BYTES, Entry, body_digest
from flow_providers.interfaces.locality import Locality

if TYPE_CHECKING:
    from flow_executors.engines.cctools_options import CctoolsExecutor

_ANSWER_S = 2.5  # seconds for an answer of the manager, whose calls last a second
_LOG_S = 0.05  # seconds between two looks at the log: what a worker has got is taken away from a second one
_PRIORITY = 1e9  # what a step of priority is worth in places of the queue
_COPY = 1 << 20
_PROBE_S = 0.1
_UNNAMED_S = 10.0  # seconds after which a worker that takes no probe of a block is somebody's
_EXIT_WRONG_PYTHON = 3
_PASSWORD = "flow_cctools_password"


class WorkerLost(Exception):
    """A worker of the library went away with a task."""


class TaskFailed(Exception):
    """The library could not bring a task to its end."""


class TaskCancelled(Exception):
    """A task was taken back."""


class WrongPython(Exception):
    """The Python of a worker cannot run tasks of the script."""


class FilesNotMoved(Exception):
    """What a task has made could not be put to its place."""


@dataclass(slots=True)
class _Out:
    """A batch that the manager has."""

    batch: Batch
    folder: Path
    files: FilesByConnection | None
    task: int = -1
    worker: str = ""
    killed: bool = False


class CctoolsEngine(Engine):
    """One Work Queue, or one TaskVine, as one started executor has it."""

    alone = True
    shares_disk = False
    batch_s = 0.5  # each batch is a process of its own, which takes a fifth of that to begin

    def __init__(self, options: CctoolsExecutor, library: str, context: RunContext) -> None:
        self.name = options.engine_name
        self._options = options
        self._library = library
        self._context = context
        self._log = context.logger
        self.elastic = options.borrowed
        self.shares_disk = options.shared_fs
        self._home = context.executor_dir / "tasks"
        self._events: EngineEvents | None = None
        self._head: HeadProcess | None = None
        self._control: socket.socket | None = None
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._out: dict[int, _Out] = {}
        self._by_task: dict[int, int] = {}
        self._sent_before: dict[int, TaskSent] = {}  # told by the log before the manager has told the number
        self._workers: dict[str, EngineWorker] = {}
        self._most: dict[str, float] = {}
        self._probes: dict[int, str] = {}  # number of a probe, below 0 -> the block whose worker it is to name
        self._blocks: dict[str, str] = {}  # worker -> its block
        self._unnamed: dict[
            str, tuple[EngineWorker, float]
        ] = {}  # workers whose block is not known yet, and since when
        self._answers: dict[int, tuple[threading.Event, dict[str, Any]]] = {}
        self._questions = 0
        self._password = b""
        self._closing = False
        self._umask = current_umask()
        self._leaf = Path()
        self.port = 0
        self._log_path = ""
        self._threads: list[threading.Thread] = []

    # -- begin and end

    def open(self, events: EngineEvents, timeout_s: float) -> None:
        """Start the manager. Raises ExecutorError."""
        options = self._options
        self._events = events
        make_directory(self._home, 0o700)
        try:
            with suppress(FileNotFoundError):  # of the start before: the libraries append to it
                (self._context.executor_dir / "transactions.log").unlink()
            self._leaf = write_archive(self._home, any_python=options.source)
            password = self._password_file()
            ours, theirs = socket.socketpair()
            with theirs:
                self._head = HeadProcess(
                    [options.manager_python or sys.executable, cctools_manager.__file__],
                    self._context.executor_dir / "manager.log",
                    _environment(options.project_name),
                    streams=theirs.fileno(),
                )
            self._control = ours
            self._send(self._opening(password))
            self._opened(timeout_s)
        except BaseException as error:
            self.close(2.0)
            if isinstance(error, ExecutorError) or not isinstance(error, Exception):
                raise
            raise ExecutorError(f"executor {options.label!r}: {self.name} cannot be started: {error}") from error
        for name, function in (("events", self._listen), ("log", self._follow)):
            thread = threading.Thread(target=function, name=f"flow-{self._library}-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._log.info("%s: workers connect to port %d of %s", options.label, self.port, socket.gethostname())

    def _opening(self, password_file: str) -> dict[str, Any]:
        """Return what the manager is told first."""
        options = self._options
        return {
            "library": self._library,
            "directory": str(self._context.executor_dir),
            "port": options.port,
            "project_name": options.project_name or "",
            "password_file": password_file,
            "full_debug": options.full_debug,
            "learn_sizes": options.learn_sizes,
            "certificate": options.ssl_certificate or "",
            "key": options.ssl_key or "",
            **options.opening(),
        }

    def _opened(self, timeout_s: float) -> None:
        assert self._control is not None
        self._control.settimeout(timeout_s)
        line = b""
        try:
            while not line.endswith(b"\n"):
                more = self._control.recv(1)
                if not more:
                    raise ExecutorError(f"executor {self._options.label!r}: {self._why_no_manager()}")
                line += more
        except TimeoutError:
            raise ExecutorError(
                f"executor {self._options.label!r}: the manager of {self.name} did not start in {timeout_s:g} s"
            ) from None
        said = json.loads(line)
        if said["event"] != "open":
            python = self._options.manager_python or sys.executable
            advice = (
                f"{python} has no ndcctools: it is part of the Cooperative Computing Tools (conda-forge: ndcctools), "
                "and on no index of pip. Name a Python that has it by manager_python="
            )
            text = advice if said["kind"] in ("ModuleNotFoundError", "ImportError") else said["why"]
            raise ExecutorError(f"executor {self._options.label!r}: {self.name} cannot be started: {text}")
        self.port, self._log_path = int(said["port"]), said["log"]
        self._options.bound_port = self.port
        self._control.settimeout(None)

    def _why_no_manager(self) -> str:
        assert self._head is not None
        deadline = time.monotonic() + 1.0
        while not (ended := self._head.ended()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return f"the manager of {self.name} has ended: {ended or self._head.tail()}"

    def _password_file(self) -> str:
        options = self._options
        if options.project_password_file is not None:
            given = Path(options.project_password_file)
            self._password = given.read_bytes()
            return str(given.resolve())
        if options.project_password is not None:
            self._password = options.project_password.encode()
        elif options.borrowed:
            return ""  # workers of the user's know none
        else:
            self._password = secrets.token_hex(32).encode()
        path = self._home / "password"
        path.touch(0o600)
        path.write_bytes(self._password)
        return str(path)

    def close(self, timeout_s: float) -> Sequence[str]:
        """End the manager, which lets go of its workers, and remove what it has been given."""
        self._closing = True
        self._events = None
        self._options.bound_port = 0
        control, self._control = self._control, None
        if control is not None:
            with suppress(OSError):
                control.shutdown(socket.SHUT_WR)
            self._knock()
        forced = []
        if self._head is not None:
            deadline = time.monotonic() + timeout_s / 2
            while not self._head.ended() and time.monotonic() < deadline:
                time.sleep(0.02)
            if text := self._head.end(max(0.5, timeout_s / 2)):
                forced.append(text)
        if control is not None:
            control.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(1.0)
        shutil.rmtree(self._home, ignore_errors=True)
        return forced

    # -- blocks

    def worker_command(self, block: str) -> str:
        """Return the command of a block's worker, one on each node."""
        options = self._options
        provider = options.provider
        for _ in range(provider.nodes_per_block if provider is not None else 1):
            self._probe(block)
        words = [options.worker_program, "--single-shot", "--timeout", "900", "--feature", f"flow-{block}"]
        words += ["--cores", str(options.node_workers())]
        if options.mem_per_worker is not None:
            words += ["--memory", str(int(options.mem_per_worker * 1000 * options.node_workers()))]
        if options.gpus_per_node:
            words += ["--gpus", str(options.gpus_per_node)]
        words += [*options.worker_options, *(("--ssl",) if options.ssl_certificate else ())]
        line = " ".join(map(shlex.quote, words))
        host = options.host or ("127.0.0.1" if self._here() else socket.gethostname())
        password = f'"$FLOW_SECRET_{_PASSWORD.upper()}"'
        # What a killed worker leaves behind (its tasks, TaskVine's server of transfers) holds its connection open, and
        # so its loss unseen: all of it is in one group of processes, which ends with it.
        return "\n".join(
            (
                'd=$(mktemp -d "${TMPDIR:-/tmp}/flow-worker-XXXXXX")',
                "set -m",
                f'{line} --workdir "$d" --password {password} {shlex.quote(host)} {self.port} & p=$!',
                "trap 'kill -TERM -- -$p 2>/dev/null' TERM INT HUP",
                "wait $p; c=$?; kill -KILL -- -$p 2>/dev/null",
                'rm -rf "$d"; exit $c',
            )
        )

    def _probe(self, block: str) -> None:
        """Send what only a worker of a block takes: the log then tells which worker that is, and nothing else does."""
        with self._lock:
            self._questions += 1
            number = -self._questions
            self._probes[number] = block
        self._send(
            {
                "command_name": "submit",
                "task": number,
                "command": f"sleep {_PROBE_S}",
                "inputs": [],
                "outputs": [],
                "environment": {},
                "cores": self._options.node_workers(),
                "priority": 1e15,
                "category": "",
                "feature": f"flow-{block}",
            }
        )

    def secrets(self) -> Sequence[tuple[str, bytes]]:
        """Return the password of the queue."""
        return ((_PASSWORD, self._password),)

    def _here(self) -> bool:
        provider = self._options.provider
        return provider is not None and provider.locality is Locality.THIS_MACHINE

    # -- batches

    def refusal(self, spec: TaskSpec) -> str:
        """Return what a task asks for that no worker of the executor's blocks has."""
        options, wanted = self._options, spec.resources
        if options.borrowed:
            return ""
        most = {"cores": float(options.node_workers()), "gpus": float(options.gpus_per_node)}
        if options.mem_per_worker is not None:
            most["memory"] = options.mem_per_worker * 1000 * options.node_workers()
        asked = {"cores": wanted.cores, "gpus": wanted.gpus, "memory": float(wanted.memory_mb)}
        for name, amount in most.items():
            if asked[name] > amount:
                return f"it asks for {name} {asked[name]:g}, and a worker has {amount:g}"
        return ""

    def why(self, spec: TaskSpec) -> str:
        """Say what a task asks for that no worker has just now."""
        wanted = spec.resources
        asked = {"cores": wanted.cores, "gpus": wanted.gpus, "memory": wanted.memory_mb, "disk": wanted.disk_mb}
        with self._lock:
            most = dict(self._most) if self._workers else {}
        lacking = [
            f"{asked[name]:g} {name} (at most {most[name]:g})" for name in most if asked.get(name, 0) > most[name]
        ]
        return f"no worker that is connected has {', '.join(lacking)}" if lacking else ""

    def submit(self, batch: Batch) -> None:
        """Hand a batch to the manager."""
        folder = self._home / str(batch.number)
        make_directory(folder, 0o700)
        out = _Out(batch, folder, batch.files)
        with self._lock:
            self._out[batch.number] = out
        try:
            self._send(self._order(out))
        except BaseException:
            self._forget(batch.number)
            raise

    def _order(self, out: _Out) -> dict[str, Any]:
        options, batch, spec = self._options, out.batch, out.batch.spec
        task = out.folder / "task"
        task.write_bytes(pickle.dumps(list(batch.parcels), protocol=5))
        inputs: list[tuple[str, str, bool]] = []
        outputs: list[tuple[str, str]] = []
        if options.shared_fs:
            leaf, given, result = str(self._leaf), str(task), str(out.folder / "result")
        else:
            leaf, given, result = "flow-leaf.zip", "task", "result"
            inputs = [(str(self._leaf), leaf, True), (str(task), given, False)]
            outputs = [(str(out.folder / "result"), result)]
            if out.files is not None:
                inputs += self._inputs(out.files, out.folder)
                outputs.append((str(out.folder / sandbox.MADE), sandbox.MADE))
        wanted = spec.resources
        return {
            "command_name": "submit",
            "task": batch.number,
            "command": self._command(leaf, given, result),
            "inputs": inputs,
            "outputs": outputs,
            "environment": dict(options.env or {}),
            "cores": max(1, math.ceil(wanted.cores)),
            "memory": wanted.memory_mb or None,
            "disk": wanted.disk_mb or None,
            "gpus": math.ceil(wanted.gpus) if wanted.gpus else None,
            # Equals run in order of submission, which the libraries would turn round.
            "priority": spec.priority * _PRIORITY - batch.number,
            "category": batch.function if options.learn_sizes else "",
        }

    def _command(self, leaf: str, task: str, result: str) -> str:
        options = self._options
        names = [options.python] if options.python else [sys.executable, f"python3.{sys.version_info[1]}", "python3"]
        tries = "; ".join(f"p=$(command -v {shlex.quote(name)}) && break" for name in names)
        line = f'exec "$p" {shlex.quote(leaf)} {shlex.quote(task)} {shlex.quote(result)}'
        enter = (
            f"cd {shlex.quote(str(Path(options.working_dir).resolve()))} && "
            if options.working_dir and options.shared_fs
            else ""
        )
        initial = f"{options.init_command.rstrip().rstrip(';')}; " if options.init_command.strip() else ""
        none = f"echo 'flow: no Python here' >&2; exit {_EXIT_WRONG_PYTHON}"
        return f"{enter}{initial}while :; do {tries}; {none}; done; {line} 2>&1"

    def _inputs(self, files: FilesByConnection, folder: Path) -> list[tuple[str, str, bool]]:
        """Return what the library is to bring, and write the list of it."""
        given: dict[str, Any] = {"entries": [], "missing": [], "error": ""}
        brought: list[tuple[str, str, bool]] = []
        try:
            listing = Listing(files)
            given["missing"] = listing.missing
            for number, entry in enumerate(listing.entries if not listing.missing else ()):
                name = ""
                if entry.type == "f":
                    name = f"{sandbox.GIVEN_FILES}.{number}"
                    path = os.path.realpath(listing.path(entry))
                    # One name for each version: the libraries keep files by their paths.
                    if entry.version:
                        path = self._version(path, entry.version)
                    brought.append((path, name, bool(entry.version)))
                given["entries"].append((entry.file, entry.member, entry.type, entry.mode, name))
        except StagingError as error:
            given["error"] = str(error)
        made = folder / sandbox.GIVEN
        made.write_text(json.dumps(given))
        return [*brought, (str(made), sandbox.GIVEN, False)]

    def _version(self, path: str, version: str) -> str:
        folder = self._home / "versions"
        make_directory(folder, 0o700)
        link = folder / version
        with suppress(FileExistsError):
            link.symlink_to(path)
        return str(link)

    def cancel(self, number: int) -> bool | None:
        """Take a batch back that no worker has."""
        answer = self._ask({"command_name": "take_back", "task": number})
        if answer is None or not answer["known"]:
            return None
        if answer["done"]:
            self._forget(number)
            return True
        return False

    def kill(self, number: int, pid: int) -> bool:
        """Have the library end a task, wherever it is."""
        with self._lock:
            out = self._out.get(number)
            if out is None:
                return False
            out.killed = True
        answer = self._ask({"command_name": "cancel", "task": number})
        if answer is None or not answer["done"]:
            return False
        self._failed(number, TaskCancelled("it was cancelled"))
        return True

    def loss(self, error: BaseException) -> EngineLoss:
        """Return what has become of a batch."""
        if is_a(error, TaskCancelled):
            return EngineLoss(LossKind.WORKER, str(error), cancelled=True)
        if is_a(error, WrongPython):
            return EngineLoss(LossKind.EXECUTOR, str(error), refused=True)
        if is_a(error, WorkerLost):
            worker = error.args[1] if len(error.args) > 1 else ""
            known = self._workers.get(worker)
            return EngineLoss(LossKind.WORKER, str(error.args[0]), worker=worker, node=known.node if known else "")
        if is_a(error, TaskFailed):
            return EngineLoss(LossKind.WORKER, str(error))
        return EngineLoss(LossKind.EXECUTOR, f"{self.name} gave an error of its own: {one_line(error)}")

    def _failed(self, number: int, error: BaseException) -> None:
        events = self._events
        if self._forget(number) is not None and events is not None:
            events.failed(number, error)

    def _forget(self, number: int) -> _Out | None:
        with self._lock:
            out = self._out.pop(number, None)
            if out is not None:
                self._by_task.pop(out.task, None)
        if out is not None:
            shutil.rmtree(out.folder, ignore_errors=True)
        return out

    # -- what the manager tells

    def _listen(self) -> None:
        control = self._control
        unread = b""
        while control is not None:
            try:
                data = control.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                try:
                    self._told(json.loads(line))
                except BaseException as error:
                    pass_signal(error)
                    self._log.warning("%s: %s", self._options.label, one_line(error))
        events = self._events
        if events is not None and not self._closing:
            events.broken(self._why_no_manager())

    def _told(self, said: dict[str, Any]) -> None:
        what = said["event"]
        if what == "answer":
            with self._lock:
                known = self._answers.pop(said["question"], None)
            if known is not None:
                known[1].update(said)
                known[0].set()
        elif what == "submitted":
            with self._lock:
                self._by_task[said["named"]] = said["task"]
                out = self._out.get(said["task"])
                if out is not None:
                    out.task = said["named"]
                before = self._sent_before.pop(said["named"], None)
            if before is not None:
                self._has(before)
        elif what == "refused":
            self._failed(said["task"], TaskFailed(f"{self.name} did not take it: {said['why']}"))
        elif what == "ended" and said["task"] < 0:
            with self._lock:
                block = self._probes.pop(said["task"], None)
            if block is not None and not said["well"]:
                self._probe(block)
        elif what == "ended":
            self._ended(said)

    def _ended(self, said: Mapping[str, Any]) -> None:
        number = int(said["task"])
        with self._lock:
            out = self._out.get(number)
        events = self._events
        if out is None or events is None:
            return
        output = str(said["output"]).strip()
        if self._options.see_worker_output and output:
            print(output, flush=True)  # noqa: T201  # what the option is for
        if not said["well"] or said["exit"] != 0:
            self._failed(number, self._error(said, output, out))
            return
        try:
            results = pickle.loads((out.folder / "result").read_bytes())  # bytes of parcels, as they were packed
            if out.files is not None and not self._options.shared_fs:
                self._publish(out.files, out)
        except StagingError as error:
            from flow_core.remote.parcel import failed_parcel

            results = [failed_parcel(error)]
        except Exception as error:
            self._failed(number, TaskFailed(f"its result cannot be read: {one_line(error)}"))
            return
        if self._forget(number) is not None:
            events.ended(number, results)

    def _error(self, said: Mapping[str, Any], output: str, out: _Out) -> Exception:
        host = said["host"] or "its worker"
        tail = f": {output[-500:]}" if output else ""
        if said["exit"] == _EXIT_WRONG_PYTHON:
            return WrongPython(f"{host} cannot run it{tail}")
        if said["limits"]:
            return TaskFailed(
                f"{self.name} ended it on {host}, since it used more than it may: {', '.join(said['limits'])}"
            )
        if not said["well"] and out.worker and "INPUT" in str(said["result"]).upper():
            # Its file was taken away when the first worker had it.
            return WorkerLost(f"a worker of {self.name} was lost with it", out.worker)
        code = int(said["exit"])
        how = f"signal {-code if code < 0 else code - 128}" if code < 0 or code > 128 else f"exit code {code}"
        return TaskFailed(f"{self.name} says {said['result']} of it on {host}, {how}{tail}")

    def _publish(self, files: FilesByConnection, out: _Out) -> None:
        """Put what a task has made to its places. Raises StagingError."""
        folder = out.folder / sandbox.MADE
        try:
            listed = json.loads((folder / sandbox.MADE_LIST).read_text())
        except FileNotFoundError:
            return  # the task ended before it had made anything
        except (OSError, ValueError) as error:
            raise StagingError(f"{self.name} did not bring back what the task has made: {one_line(error)}") from error
        entries, paths = [], []
        for number, member, kind, mode, name in listed:
            if kind == "f" and not str(name).isdigit():
                raise StagingError("a worker listed a file that is none of the task's")
            path = folder / str(name) if kind == "f" else None
            size = path.stat().st_size if path is not None else 0
            entries.append(Entry(int(number), str(member), "f" if kind == "f" else "d", size, int(mode)))
            paths.append(path)
        arrival = Arrival(files, f"{out.batch.number:x}-{os.getpid():x}-{secrets.token_hex(4)}", self._umask)
        try:
            arrival.listed(entries)
            for place, (entry, path) in enumerate(zip(entries, paths, strict=True)):
                if path is not None:
                    _bring(arrival, place, entry.size, path)
            arrival.publish()
        except OSError as error:
            raise StagingError(f"what the task has made cannot be put to its place: {one_line(error)}") from error
        finally:
            arrival.abandon()

    # -- what the log tells

    def _follow(self) -> None:
        """Read the log of transactions as it grows."""
        reader, file = TransactionLog(), None
        while not self._closing:
            try:
                if file is None:
                    file = open(self._log_path, "rb")  # noqa: SIM115  # for as long as this thread
                data = file.read()
            except OSError:
                data = b""
            for event in reader.feed(data) if data else ():
                try:
                    self._note(event)
                except BaseException as error:
                    pass_signal(error)
                    self._log.warning("%s: %s", self._options.label, one_line(error))
            if not data:
                time.sleep(_LOG_S)
        if file is not None:
            file.close()

    def _note(self, event: LogEvent) -> None:
        if isinstance(event, TaskSent):
            self._has(event)
        elif isinstance(event, WorkerHas):
            self._joined(event)
        else:
            self._gone(event)

    def _has(self, event: TaskSent) -> None:
        """A worker has a task: nobody else is to get it."""
        with self._lock:
            number = self._by_task.get(event.task)
        if number is not None and number < 0:
            self._named(number, event.worker)
            return
        with self._lock:
            out = self._out.get(number) if number is not None else None
            if out is None or number is None:
                if len(self._sent_before) > 10_000:
                    self._sent_before.clear()
                self._sent_before[event.task] = event
                return
            again, out.worker = bool(out.worker), out.worker or event.worker
            known = self._workers.get(event.worker)
        if again:
            self._lost(number, out.worker)
            return
        with suppress(OSError):
            (out.folder / "task").unlink() if not self._options.shared_fs else None
        events = self._events
        if events is not None:
            events.began(number, event.at_ns, known.node if known is not None else "")

    def _joined(self, event: WorkerHas) -> None:
        address = event.address.rpartition(":")[0]
        here = address in ("127.0.0.1", "::1")
        cores = max(1, int(event.resources.get("cores", 1)))
        node = os.uname().nodename if here else address
        memory = int(event.resources.get("memory", 0)) << 20
        with self._lock:
            block = "" if self._options.borrowed else self._blocks.get(event.worker)
            worker = EngineWorker(event.worker, node, cores, block or "", cpu_count=cores, memory_bytes=memory)
            if block is None:
                self._unnamed.setdefault(event.worker, (worker, time.monotonic()))
            else:
                self._workers[event.worker] = worker
            for name, amount in event.resources.items():
                self._most[name] = max(self._most.get(name, 0.0), amount)
        if block is not None and self._events is not None:
            self._events.joined(worker)

    def _named(self, probe: int, worker: str) -> None:
        """A worker has a probe: now it is known whose it is."""
        with self._lock:
            block = self._probes.pop(probe, None)
            if block is None:
                return
            again = worker in self._blocks
            self._blocks.setdefault(worker, block)
            found = self._unnamed.pop(worker, None)
            if found is not None:
                known = self._workers[worker] = replace(found[0], block=block)
        if again:
            self._probe(block)  # the other nodes of the block have theirs still to come
        elif found is not None and self._events is not None:
            self._events.joined(known)

    def look(self) -> None:
        """Count workers that are of no block of the executor's, and came by themselves."""
        before = time.monotonic() - _UNNAMED_S
        with self._lock:
            old = [worker for worker, since in self._unnamed.values() if since < before]
            for worker in old:
                del self._unnamed[worker.name]
                self._blocks[worker.name] = ""
                self._workers[worker.name] = worker
        for worker in old:
            if self._events is not None:
                self._events.joined(worker)

    def _gone(self, event: WorkerGone) -> None:
        with self._lock:
            worker = self._workers.pop(event.worker, None)
            self._unnamed.pop(event.worker, None)
            self._blocks.pop(event.worker, None)
            lost = [number for number, out in self._out.items() if out.worker == event.worker]
        for number in lost:
            self._lost(number, event.worker, worker)
        if self._events is not None:
            self._events.left(event.worker, f"{self.name} says {event.why}", lost=event.why in ("FAILURE", "UNKNOWN"))

    def _lost(self, number: int, worker: str, known: EngineWorker | None = None) -> None:
        # The library has it in its queue again, and finds nothing to send when its turn comes. It is not cancelled
        # there: Work Queue keeps a hold of such a task after it has freed it.
        where = f" on {known.node}" if known is not None else ""
        self._failed(number, WorkerLost(f"a worker of {self.name}{where} was lost with it", worker))

    # -- how

    def _ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return the manager's answer; None where there is none in time."""
        done: tuple[threading.Event, dict[str, Any]] = (threading.Event(), {})
        with self._lock:
            self._questions += 1
            number = self._questions
            self._answers[number] = done
        try:
            self._send({**question, "question": number})
            return done[1] if done[0].wait(_ANSWER_S) else None
        finally:
            with self._lock:
                self._answers.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        control = self._control
        if control is None:
            return
        with self._sending:
            control.sendall(json.dumps(message).encode() + b"\n")
        self._knock()

    def _knock(self) -> None:
        """Have the library's wait come to its end: it does so when somebody connects to its port, and goes again."""
        if self.port:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                pass


def _bring(arrival: Arrival, number: int, size: int, path: Path) -> None:
    from hashlib import blake2b

    digest = blake2b(digest_size=DIGEST_BYTES)
    arrival.begin(number, 0, size)
    with path.open("rb") as stream:
        while content := stream.read(_COPY):
            digest.update(content)
            arrival.write(memoryview(content))
    arrival.end(digest.digest() if size else body_digest(b""))


def _environment(project: str | None) -> dict[str, str]:
    """Return variables of the manager: without a name of its project it announces itself nowhere."""
    return {} if project else {"CATALOG_HOST": "127.0.0.1:9", "VINE_CATALOG": "127.0.0.1:9"}
