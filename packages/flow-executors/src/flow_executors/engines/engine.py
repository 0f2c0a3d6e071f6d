"""What an adapter to an engine is: a subclass of ``Engine``, and one of ``executor.EngineExecutor`` that makes it.

An engine is somebody's cluster: a Dask scheduler and its workers, a Ray cluster. The executor either owns it (the
adapter starts its head here, and blocks of a Flow provider run the command of its workers) or borrows it (it is there,
and stays). All that is the same for every engine is in this folder:

- ``executor.EngineExecutor``: the options, and the interface that the kernel knows
- ``runtime.EngineRuntime``: one started executor: which tries wait (``batching_core``), which batches the engine has,
  the blocks (``flow_executors.scaling``), starts, losses, cancellation, load, reasons, events, the end
- ``journals``: what workers write of a batch into the run's directory, where they see it
- ``head_process.HeadProcess``: a process of the engine's on this machine, which ends with the script

An adapter is then a module of this folder, loaded when its executor is started, which imports the engine:

1. ``class XExecutor(EngineExecutor)``: a dataclass with its own options; ``honours``, ``kills``; ``_engine(...)``
   returns the ``Engine`` of one start.
2. ``class XEngine(Engine)``: the methods below. The engine gets ``run_batch`` of ``flow_core.remote.parcel_batch`` to
   run, with ``batch.parcels``, ``batch.journal`` and ``alone``; its workers need ``flow_core`` only.

What an adapter must see to:

- *the engine's own retries are off*: Flow counts and makes tries;
- ``submit`` hands a batch over and returns; what comes of it is told by ``events.ended`` (the list that ``run_batch``
  returned) or ``events.failed`` (the engine's own error), once, from any thread;
- workers are told by ``events.joined`` and ``events.left``; the number of slots follows from these alone;
- if the engine itself is gone, ``events.broken`` says so: what is out is lost, what waits is refused.

Threads: ``open`` is called by the thread that loads the Config. ``submit``, ``cancel``, ``kill``, ``busy``, ``retire``
and ``look`` come from threads of the runtime's, which hold no lock, and may block for a second or two: the first and
the last from one, ``cancel`` and ``kill`` from another, the rest from the scaler's.
``refusal`` is called in ``submit`` of the executor, and must neither block nor talk to the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from flow_core.guard import one_line
from flow_core.interfaces.call import TaskSpec
from flow_core.loss import LossKind
from flow_core.remote.script_files import FilesByConnection


@dataclass(frozen=True, slots=True)
class EngineWorker:
    """A worker of an engine: what takes tasks, on one node.

    Attributes:
        name: Its name, which no other worker has at the same time.
        node: Host name of its node.
        slots: Tasks that it runs at once.
        block: Id of its block; empty where it is in none of the executor's.
        pid: Its process id, 0 where not known.
        cpu_count: Cores of its node, 0 where not known.
        memory_bytes: Memory of its node, 0 where not known.
        python: Version of its Python, empty where not known.
        here: Whether it is known to run on this machine.
    """

    name: str
    node: str
    slots: int
    block: str = ""
    pid: int = 0
    cpu_count: int = 0
    memory_bytes: int = 0
    python: str = ""
    here: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that go to an engine as one task of it.

    Attributes:
        number: Its number, unique in the executor's life.
        parcels: The tasks.
        spec: Their class: what they ask for is asked of the engine once, since they run one after the other.
        journal: Path of its journal; empty for none.
        function: Name of the function of the first of them.
        files: Files of the script's machine, of a task that has some where the engine brings them; it is then alone.
    """

    number: int
    parcels: Sequence[bytes]
    spec: TaskSpec
    journal: str
    function: str = ""
    files: FilesByConnection | None = None


@dataclass(frozen=True, slots=True)
class EngineLoss:
    """What an error of an engine means for a batch.

    Attributes:
        kind: What died.
        reason: What happened, for the user.
        refused: Whether the batch can never run there: its tasks are refused, and not tried again.
        cancelled: Whether it was cancelled, and ran nothing.
        worker: Name of the worker that died, empty where not known.
        node: Its node.
    """

    kind: LossKind
    reason: str
    refused: bool = False
    cancelled: bool = False
    worker: str = ""
    node: str = ""


class NotSent(Exception):
    """Raised by ``Engine.submit`` where there is no worker any more: the batch waits for others."""


class EngineEvents(Protocol):
    """Takes what an engine has to tell. Any thread; never blocks, never raises."""

    def joined(self, worker: EngineWorker) -> None:
        """A worker is there. Told again with other values, these replace the first ones."""
        ...

    def left(self, name: str, reason: str, *, lost: bool) -> None:
        """A worker has gone; unknown names are ignored."""
        ...

    def began(self, number: int, at_ns: int, node: str) -> None:
        """A worker has a batch, and begins with its first task: where no journal tells. In ns UTC."""
        ...

    def ended(self, number: int, results: Sequence[bytes | None]) -> None:
        """A batch has come to an end: what ``run_batch`` returned."""
        ...

    def failed(self, number: int, error: BaseException) -> None:
        """A batch has come to no end: the engine's own error, see ``Engine.loss``."""
        ...

    def broken(self, text: str) -> None:
        """The engine is gone, as a sentence: nothing runs there any more. The first time counts."""
        ...


class Engine(ABC):
    """One engine, as one started executor has it. Made by ``EngineExecutor._engine``, opened, and closed once."""

    name: str = "engine"
    """Name of the engine, for messages."""
    alone: bool = False
    """Whether a worker process runs one task at a time, so that its directory and its environment can be the task's."""
    batch_s: float | None = None
    """Seconds of work of a batch, where the engine takes long to begin with one; None for the usual ones."""
    shares_disk: bool = True
    """Whether its workers see the script's disk. If not, the engine brings ``Batch.files``, and tasks begin in a
    directory of their own."""
    elastic: bool = False
    """Whether the engine itself, or who started it, adds workers: it is given tasks though it has none."""

    @abstractmethod
    def open(self, events: EngineEvents, timeout_s: float) -> None:
        """Start the engine's head here, or connect; tell the workers that are there.

        Raises:
            ExecutorError: it cannot be started or reached; nothing is left running then.
        """

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Hand a batch over. What it raises is taken for ``events.failed``, except NotSent."""

    @abstractmethod
    def cancel(self, number: int) -> bool | None:
        """Take a batch back; return what the engine says.

        True: it never runs, and ``events`` hears no more of it. False: it runs. None: the engine does not say; then
        the batch is told by ``events`` as ever.
        """

    def kill(self, number: int, pid: int) -> bool:
        """End a batch that runs, with its worker if need be; ``pid`` is its process, 0 where not known.

        Return whether that was done, or asked for: then ``events.failed`` follows. Whatever has not begun of it is
        tried again elsewhere.
        """
        return False

    def refusal(self, spec: TaskSpec) -> str:
        """Return why tasks of a class can never run there, such as for resources that no worker has; empty if they may.

        While there are no workers yet the answer may only be of what no worker of the executor's blocks will have.
        """
        return ""

    def why(self, spec: TaskSpec) -> str:
        """Return what keeps tasks of a class from running just now, beside what runs; empty for nothing known."""
        return ""

    def loss(self, error: BaseException) -> EngineLoss:
        """Return what an error of the engine's means. Never raises."""
        return EngineLoss(LossKind.EXECUTOR, f"{self.name} gave an error of its own: {one_line(error)}")

    def busy(self) -> Collection[str] | None:
        """Return the names of workers that have something to do; None where that is not known: then all have."""
        return None

    def retire(self, workers: Collection[str]) -> None:
        """Have workers that have nothing to do leave in order; they are not used any more, and their jobs end soon."""
        return None

    def look(self) -> None:
        """Look after the engine, once a second: for what it does not tell by itself. May call ``events``."""
        return None

    @abstractmethod
    def worker_command(self, block: str) -> str:
        """Return the shell command that runs the workers of a block, in the foreground, on each of its nodes.

        Raises:
            ExecutorError: this engine is borrowed, or cannot have workers now.
        """

    def secrets(self) -> Sequence[tuple[str, bytes]]:
        """Return what is to lie on nodes beside the command, as ``BlockOrder.secrets``."""
        return ()

    @abstractmethod
    def close(self, timeout_s: float) -> Sequence[str]:
        """Disconnect, and end what ``open`` has started; return what had to be forced. Bounded; never raises."""
