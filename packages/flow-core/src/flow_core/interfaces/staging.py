"""How files get to where an app needs them, and back."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flow_core.files import File
from flow_core.interfaces.call import TaskStep

Digests = Sequence[str]
"""What was learnt of files that were moved: the digest of each one's content, hexadecimal, in the order of the
transfers; empty text where none is known. The length tells the algorithm: 32 MD5, 40 SHA-1, 64 SHA-256, 128 SHA-512.
"""


class Direction(Enum):
    """Which way a file goes, seen from the task."""

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
    """

    file: File
    local_path: Path
    direction: Direction
    task_id: int
    executor: str


class Staging(ABC):
    """A way of moving files. Each transfer is done either on the submit side (``stage``) or on the node (``step``).

    The kernel asks the staging methods of an executor in order and takes the first that can. It then calls ``step``;
    if that gives None, it calls ``stage``. If both give None, the file needs no moving.
    """

    def can_stage_in(self, file: File) -> bool:
        """Tell whether this method can bring the file in. Pure and cheap; any thread."""
        return False

    def can_stage_out(self, file: File) -> bool:
        """Tell whether this method can bring the file out. Pure and cheap; any thread."""
        return False

    def local_path(self, file: File, working_dir: str | None) -> Path | None:
        """Return where the task finds the file under this method, or None to let the kernel choose.

        By default the kernel puts remote files by their own name under ``working_dir``, or else under ``staged`` in the
        run's directory.
        """
        return None

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | Future[Digests] | None:
        """Move all given files of one task and one direction on the submit side; called once a try, must not block.

        The directories of files that come in are there. The future ends when all of them are whole at their
        destination, or holds the error naming the URL. Its result may be the digests that were learnt on the way, which
        sinks are told of.
        """
        return None

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        """Return data that moves the given files of one task and one direction on the node, around the function."""
        return None

    def close(self) -> None:
        """Release what the method holds; transfers still going may be cut.

        Called when the last kernel of this process that uses the method ends. It may be used again after that.
        """
        return None
