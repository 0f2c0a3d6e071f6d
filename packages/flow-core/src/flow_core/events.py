"""Event records of a run, by the names that users and sinks know."""

from flow_core.interfaces.events import (
    BlockChanged as BlockChanged,
    Event as Event,
    EventKind as EventKind,
    EventsLost as EventsLost,
    FileMoving as FileMoving,
    FileStaged as FileStaged,
    NodeHeld as NodeHeld,
    NodeJoined as NodeJoined,
    NodeLeft as NodeLeft,
    RunEnded as RunEnded,
    RunStarted as RunStarted,
    Sampled as Sampled,
    TaskChanged as TaskChanged,
    TaskEnded as TaskEnded,
    TaskJoined as TaskJoined,
    TaskSubmitted as TaskSubmitted,
    TryEnded as TryEnded,
    TryLaunched as TryLaunched,
    TryStarted as TryStarted,
)
