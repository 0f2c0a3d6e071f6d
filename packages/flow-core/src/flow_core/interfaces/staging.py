"""Staging interface: how files get to where an app needs them, and back."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from time import time_ns

from flow_core.files import File
from flow_core.interfaces.call import TaskStep

Digests = Sequence[str]
"""Digests of files that were moved: of the content of each, hexadecimal, in the order of the transfers; empty where
none is known. The length tells the algorithm: 32 MD5, 40 SHA-1, 64 SHA-256, 128 SHA-512.
"""


class Brought(str):
    """The digest of the content of a file that was brought in, with what is known of its version. Immutable.

    Attributes:
        version: Which version it was, as ``look`` says it of what is there; empty where that is not known.
        validator: What the other side calls that version, by which it can be asked for; empty where it does not say.
    """

    version: str
    validator: str

    def __new__(cls, digest: str = "", version: str = "", validator: str = "") -> Brought:
        """Make it of a digest, hexadecimal or empty, and what is known of the version."""
        # In __new__, since a str is made there and __init__ would come too late for its value.
        made = super().__new__(cls, digest)
        made.version = version
        made.validator = validator
        return made


Versions = Sequence[str | None]
"""Which version of each of some files is there: any text that is another one after a change; empty where there is no
file; None where it is not known."""


class Direction(Enum):
    """Direction in which a file goes, seen from the task."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file of one task.

    Attributes:
        file: The file as the user named it.
        local_path: Where the task reads or writes it.
        direction: In or out.
        task_id: The task it belongs to.
        executor: Label of the executor the task runs on.
        run: A name of the run that no other has; empty outside of one.
        working_dir: That of the executor, as it is meant where the file is moved; None if it has none.
        versioned: Whether the version that comes in is to be reported, as ``Brought``: by ``stage`` always, by a step
            where this is so, with ``flow_core.interfaces.outcome.with_read``.
        pin: The name under which the version that was brought in is reported to the run; empty if it need not be.
        version: What the run's tasks have seen under that name: this version is to be brought, or none.
    """

    file: File
    local_path: Path
    direction: Direction
    task_id: int
    executor: str
    run: str = ""
    working_dir: str | None = None
    versioned: bool = False
    pin: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class FailedTry:
    """Why a transfer that is tried again does not go on just now.

    Attributes:
        error: What the last try failed with.
        number: How many failed in a row.
        most: Number of failed tries in a row after which it is given up.
        again_ns: When the next one begins, int64 ns UTC; it may have begun without an answer so far.
    """

    error: str
    number: int
    most: int
    again_ns: int

    def __str__(self) -> str:
        # When it is shown, so that the text counts down while the next try is waited for.
        left_s = (self.again_ns - time_ns()) / 1e9
        then = f"begins in {left_s:.0f} s" if left_s > 0 else f"began {-left_s:.0f} s ago"
        return f"try {self.number} of {self.most} failed: {self.error}; the next {then}"


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of the move of a file.

    Attributes:
        moved: Bytes that are there.
        total: Bytes of the whole file, None where not known.
        speed: Bytes a second, lately.
        failed: The last try, if it failed and no byte has come or gone since.
    """

    moved: int
    total: int | None
    speed: float
    failed: FailedTry | None = None

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        failed = "" if self.failed is None else f"; {self.failed}"
        return f"{self.moved:,}{of} bytes, {self.speed:,.0f} bytes/s{failed}"


class StagingFuture(Future[Digests]):
    """Future that ``stage`` may return so that transfers can be stopped while they go on, and looked at.

    Subclasses extend ``cancel``, by which Futures that run are not affected otherwise, and ``progress``.
    """

    def cancel(self) -> bool:
        """Ask that nothing be moved any more; must not block. Any thread, also when it has ended.

        What runs is stopped within two seconds, and the future then ends with an error. True if nothing had begun.
        """
        return super().cancel()

    def progress(self) -> Sequence[Progress | None]:
        """Return how far each file is, in the order of the transfers; None or nothing where not known. Any thread."""
        return ()


class Staging(ABC):
    """A method of moving files. Each transfer is done either on the submit side (``stage``) or on the node (``step``).

    The kernel asks the staging methods of an executor in order and takes the first that can. It then calls ``step``;
    if that gives None, it calls ``stage``. If both give None, the file needs no moving.

    Each try of a task has a directory of its own for the files that are moved for it, which is removed when the task
    has ended. A method may say where that lies, and what it sees to itself:

    Attributes:
        files_home: The directory below which it lies where the executor has no ``working_dir``; None means that of the
            run.
        files_on_node: Whether it is on the node; None means where the class has a ``step``.
        copies_local: Whether local paths, too, are copied into it, for nodes that do not see them.
        moves: Which kinds of files it moves, as ``File.kind`` says; the local path of a pattern is the directory before
            it.
        checks_digests: Whether what it brings in surely has the ``digest`` that its File states, since it looks itself;
            else the task looks at what is there before its function runs.
        makes_directories: Whether it makes the directories of what it brings in itself; else they are there when
            ``stage`` is called.
        at_once: How many files of one host ``stage`` moves at once, where the method itself lets others wait; it is
            given some more than that. With None it is given those of 10 tasks at a time. The Config's
            ``data_management_max_threads`` goes before both.
        refresh: When the other side is asked whether it has another version of a file whose ``File`` does not say it:
            ``"task"``, ``"run"`` or ``"never"``, as of ``File.refresh``. For the key of a cached call a file is looked
            at as often.
    """

    files_home: str | None = None
    files_on_node: bool | None = None
    copies_local: bool = False
    moves: tuple[str, ...] = ("file",)
    checks_digests: bool = False
    makes_directories: bool = False
    at_once: int | None = None
    refresh: str = "task"

    def can_stage_in(self, file: File) -> bool:
        """Tell whether this method can bring the file in. Pure and cheap; any thread."""
        return False

    def can_stage_out(self, file: File) -> bool:
        """Tell whether this method can bring the file out. Pure and cheap; any thread."""
        return False

    def wrong_with(self, file: File, direction: Direction) -> str:
        """Return why a file of a name like this can never be moved, though its scheme says that it can; else nothing.

        Pure and cheap; any thread. What Flow's own methods return here is raised at the call. A method need not have
        this.
        """
        return ""

    def pin(self, file: File) -> str:
        """Return the name under which all tasks of a run see one version of a file or directory, wherever they run.

        Empty, as here, where each node, or each task, may see its own. It ends with the URL, on a line of its own;
        before that stands whatever else decides what is brought in. Steps tell the version by ``with_read``. A method
        need not have this.
        """
        return ""

    def local_path(self, file: File, working_dir: str | None) -> Path | None:
        """Return where the task finds the file under this method, or None to let the kernel choose.

        By default the kernel puts remote files by their own name into the directory of the try. A place chosen here is
        shared by all tasks and tries for which it is the same, and nothing there is removed.
        """
        return None

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | Future[Digests] | None:
        """Move all given files of one task and one direction on the submit side; called once a try, must not block.

        The directories of files that come in are there, unless it ``makes_directories``. The future ends when all of
        them are whole at their destination, or holds the error naming the URL. Its result may be the digests that were
        learnt on the way, which sinks are told of, or ``Brought``. Its ``cancel()`` is called when nobody needs the
        files any more: the task was cancelled, ran out of its walltime, or the run ends. See ``StagingFuture``.
        """
        return None

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        """Return data that moves the given files of one task and one direction on the node, around the function."""
        return None

    def look(self, files: Sequence[File]) -> Future[Versions] | None:
        """Look at files that this method brings in or out, where they are now; must not block. None: not known.

        Asked of outputs when the result of a cached app is to be remembered, and when it is found again: the app is run
        again if one is gone or another by then. Asked of inputs when the key of a call is made, and after its task of
        those whose version was not reported. A method need not have this.
        """
        return None

    def close(self) -> None:
        """Release what the method holds; transfers still going may be cut.

        Called when the last kernel of this process that uses the method ends. It may be used again after that.
        """
        return None
