"""The errors of executors, under the path that scripts use."""

from flow_core.errors import (
    BlockLost as BlockLost,
    DeserializationError as DeserializationError,
    ExecutorBroken as ExecutorBroken,
    ExecutorClosed as ExecutorClosed,
    ExecutorError as ExecutorError,
    ManagerLost as ManagerLost,
    ScalingFailed as ScalingFailed,
    SerializationError as SerializationError,
    TaskLost as TaskLost,
    WorkerLost as WorkerLost,
)
from flow_executors.errors import (
    BadMessage as BadMessage,
    ControllerError as ControllerError,
    InsufficientMPIRanks as InsufficientMPIRanks,
    TaskExecException as TaskExecException,
    VersionMismatch as VersionMismatch,
)
