"""The errors of the executors: those of the core that executors raise, and those of their own parts."""

from __future__ import annotations

from flow_core.errors import (
    BlockLost,
    DeserializationError,
    ExecutorBroken,
    ExecutorClosed,
    ExecutorError,
    InterchangeLost,
    ManagerLost,
    ScalingFailed,
    SerializationError,
    TaskLost,
    TaskRefused,
    WorkerLost,
)

__all__ = [
    "BadMessage",
    "BlockLost",
    "ControllerError",
    "DeserializationError",
    "ExecutorBroken",
    "ExecutorClosed",
    "ExecutorError",
    "InsufficientMPIRanks",
    "InterchangeLost",
    "ManagerLost",
    "ScalingFailed",
    "SerializationError",
    "TaskExecException",
    "TaskLost",
    "TaskRefused",
    "VersionMismatch",
    "WorkerLost",
]


class BadMessage(ExecutorError):
    """A message is mangled, badly formed or not supported; the text says which kind and what is wrong with it."""


class VersionMismatch(ExecutorError):
    """Two processes of a run share no version of the protocol, or run different Python versions."""


class ControllerError(ExecutorError):
    """The controller of a third-party engine could not be started or does not answer."""


class InsufficientMPIRanks(ExecutorError):
    """A pool over MPI got fewer than the two ranks that it needs."""


class TaskExecException(ExecutorError):
    """A task could not be carried out by the process that received it."""
