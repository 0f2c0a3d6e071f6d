"""Functions among the arguments of a call: they travel with what they name of the user's own modules, as apps do."""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KINDS = frozenset((FunctionType, MethodType, partial))

_pack: Callable[[Callable[..., object]], bytes | None] | None = None


def tell_packing(pack: Callable[[Callable[..., object]], bytes | None]) -> None:
    """Have functions packed by one that returns their blob, or None for those that pickle knows how to send."""
    global _pack
    _pack = pack


class Sent:
    """A function on its way: unpickled it is the function, and its modules are what they were."""

    __slots__ = ("blob",)

    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        return arrived, (self.blob,)


def sent(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[tuple[object, ...], dict[str, object]] | None:
    """Return arguments in which functions are ready to travel; None where there are none, and most often so."""
    if _KINDS.isdisjoint(map(type, args)) and (not kwargs or _KINDS.isdisjoint(map(type, kwargs.values()))):
        return None
    pack = _pack
    if pack is None:
        return None
    return tuple(_ready(value, pack) for value in args), {name: _ready(value, pack) for name, value in kwargs.items()}


def _ready(value: object, pack: Callable[[Callable[..., object]], bytes | None]) -> object:
    blob = pack(value) if type(value) in _KINDS else None  # type: ignore[arg-type]  # one of the three kinds
    return value if blob is None else Sent(blob)


def arrived(blob: bytes) -> Callable[..., object]:
    """Return a function that was sent. Raises as ``flow_core.remote.functions.load_function``."""
    from flow_core.remote.functions import load_function

    function, surroundings = load_function(blob)
    if surroundings is not None:
        surroundings.prepare()
    return function
