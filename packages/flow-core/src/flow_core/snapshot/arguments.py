"""Functions among the arguments of a call, as they are when the call is packed."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from weakref import WeakKeyDictionary

from flow_core.guard import pass_signal
from flow_core.remote.functions import WITH_MODULES
from flow_core.snapshot.looks import Looks
from flow_core.snapshot.travel import packed

_known: WeakKeyDictionary[Callable[..., object], tuple[Looks, bytes | None]] = WeakKeyDictionary()
"""What functions were when they were packed last; methods and partials are new objects each time."""


def packed_argument(function: Callable[..., object]) -> bytes | None:
    """Return the blob of a function that names something of the user's own modules; None for any other. Any thread."""
    known = _known.get(function) if isinstance(function, FunctionType) else None
    try:
        if known is not None and known[0].unchanged():
            return known[1]
        looks = Looks(function, True)
        blob = packed(function, looks)
    except BaseException as error:  # of an object that is looked at, or one that cannot be packed: pickle says it
        pass_signal(error)
        return None
    found = blob if blob[:1] == WITH_MODULES else None
    if isinstance(function, FunctionType):
        _known[function] = (looks, found)
    return found
