"""Losses of tries: what died, where and how. Imports nothing of Flow, since errors carry these records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class LossKind(Enum):
    """Kinds of losses: what died when a try was lost."""

    WORKER = 0
    MANAGER = 1
    BLOCK = 2
    WALLTIME = 3
    INTERCHANGE = 4
    EXECUTOR = 5
    TRANSFER = 6
    NODE = 7


@dataclass(frozen=True, slots=True)
class Place:
    """Place where a try runs or ran. Shared between tries: executors intern one object a worker."""

    executor: str
    block: str = ""
    node: str = ""
    manager: str = ""
    worker: int = 0
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss of a try: what died, where and how.

    Attributes:
        kind: The part that died.
        place: Place where the try ran, as far as known.
        exit_code: Exit code of the process that died, if it exited.
        signal: Number of the signal that killed it, if one did.
        reason: One sentence for the user: what happened and what to do.
        stderr_tail: The last lines of standard error of what died.
    """

    kind: LossKind
    place: Place | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    stderr_tail: str = ""
