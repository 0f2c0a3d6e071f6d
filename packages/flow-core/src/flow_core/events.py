"""The event records of a run, by the name users and sinks know."""

from flow_core.interfaces.events import (
    BlockChanged as BlockChanged,
)
from flow_core.interfaces.events import (
    Event as Event,
)
from flow_core.interfaces.events import (
    EventKind as EventKind,
)
from flow_core.interfaces.events import (
    EventsLost as EventsLost,
)
from flow_core.interfaces.events import (
    FileStaged as FileStaged,
)
from flow_core.interfaces.events import (
    NodeJoined as NodeJoined,
)
from flow_core.interfaces.events import (
    NodeLeft as NodeLeft,
)
from flow_core.interfaces.events import (
    RunEnded as RunEnded,
)
from flow_core.interfaces.events import (
    RunStarted as RunStarted,
)
from flow_core.interfaces.events import (
    Sampled as Sampled,
)
from flow_core.interfaces.events import (
    TaskChanged as TaskChanged,
)
from flow_core.interfaces.events import (
    TaskEnded as TaskEnded,
)
from flow_core.interfaces.events import (
    TaskSubmitted as TaskSubmitted,
)
from flow_core.interfaces.events import (
    TryEnded as TryEnded,
)
from flow_core.interfaces.events import (
    TryLaunched as TryLaunched,
)
from flow_core.interfaces.events import (
    TryStarted as TryStarted,
)
