"""Attributes of objects that their pickles leave out.

Many types of the standard library, and arrays of numpy, say how their objects are pickled without a thought of
subclasses with attributes: ``datetime``, ``Decimal``, ``Fraction``, paths, ``defaultdict``, ``Counter``, ``ndarray``.
What arrived would then not be what was sent, and nobody would say so. What classes of the user's own, and installed
ones, say of their pickles is left as it is.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from enum import Enum
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any

_REDUCING = ("__reduce__", "__reduce_ex__", "__getstate__")
_PROTOCOL = 5  # of pickle, and of __reduce_ex__: the same as of all that travels

met: list[bytes] = []
"""Names of classes of which objects with such attributes were met in this process: they stand in their pickles."""


def left_out(value: Any, reduced: object) -> dict[str, object] | None:
    """Return the attributes of an object that are not in what its ``__reduce_ex__`` gave; None where nothing lacks."""
    if not may_leave_out(type(value)) or not isinstance(reduced, tuple):
        return None
    found = dict(getattr(value, "__dict__", None) or {})
    for name in _slots(type(value)):
        try:
            found[name] = getattr(value, name)
        except AttributeError:
            continue  # not set
    state = reduced[2] if len(reduced) > 2 else None
    # pickle's own form of a state with slots is a pair of dicts.
    parts = (state, *state) if isinstance(state, tuple) else (state,)
    if not found or any(isinstance(part, dict) and part.keys() >= found.keys() for part in parts):
        return None
    # Noted, so that ``needs_care`` finds pickles with such objects by their bytes.
    mark = type(value).__qualname__.encode("utf-8", "surrogatepass")
    if mark not in met:
        met.append(mark)
    return found


def reduced_whole(value: object) -> Any:
    """Return how an object is made anew if its own pickle would leave something out, else NotImplemented.

    For ``reducer_override`` of picklers. Raises whatever the object's ``__reduce_ex__`` raises.
    """
    if not may_leave_out(type(value)):
        return NotImplemented
    reduced: Any = value.__reduce_ex__(_PROTOCOL)
    found = left_out(value, reduced)
    if found is None:
        return NotImplemented
    # The object's own state and setter travel within the new state, and ``restore`` applies them first.
    maker, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    return maker, arguments, (state, setter, found), items, pairs, restore


def restore(value: Any, state: tuple[Any, Any, dict[str, object]]) -> None:
    """Give a new object its state, and the attributes that were left out of it. Called by pickle."""
    own, setter, attributes = state
    if setter is not None:
        setter(value, own)
    elif own is not None:
        value.__setstate__(own)
    for name, one in attributes.items():
        # Past __setattr__ of the class: frozen ones refuse.
        object.__setattr__(value, name, one)


class AttributePickler(pickle.Pickler):
    """Leaves nothing out; else what pickle's own does."""

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made anew, with the attributes that its own pickle leaves out."""
        return reduced_whole(obj)


def dumps(value: object) -> bytes:
    """Pickle a value, protocol 5. Raises whatever the value's own methods raise."""
    with io.BytesIO() as file:
        AttributePickler(file, _PROTOCOL).dump(value)
        return file.getvalue()


def may_leave_out(cls: type) -> bool:
    """Tell whether pickles of objects of a class may leave out attributes."""
    try:
        return _looked_up(cls)
    except TypeError:  # a class without a hash
        # A metaclass may define __eq__ without __hash__.
        return _looked_up.__wrapped__(cls)


@lru_cache(maxsize=1024)
def _looked_up(cls: type) -> bool:
    # Registered reducers decide what counts themselves; types, functions and Enums are pickled by other means.
    if cls in copyreg.dispatch_table or issubclass(cls, (type, FunctionType, ModuleType, Enum)):
        return False
    definer = _definer(cls)
    if definer is None or not (getattr(cls, "__dictoffset__", 0) or _slots(cls)):
        return False
    top = definer.__module__.partition(".")[0]
    return top in sys.stdlib_module_names or (top, definer.__name__) == ("numpy", "ndarray")


def _definer(cls: type) -> type | None:
    """Return the class that says how objects are pickled; None if that is left to pickle, which takes all."""
    # Without object, which comes last and has all three methods.
    for base in cls.__mro__[:-1]:
        if any(name in base.__dict__ for name in _REDUCING):
            return base
    return None


def _slots(cls: type) -> list[str]:
    """Return the slots of a class and its bases, up to the one that says how objects are pickled."""
    definer = _definer(cls)
    found: list[str] = []
    for base in cls.__mro__:
        if base is definer:
            break
        found += slots_in(base)
    return found


def slots_in(base: type) -> list[str]:
    """Return the slots that one class adds, by the names of their attributes."""
    found = []
    slots = base.__dict__.get("__slots__", ())
    for slot in (slots,) if isinstance(slots, str) else tuple(slots):
        if slot not in ("__dict__", "__weakref__"):
            # Private names are mangled with the name of their class, without its leading underscores.
            hidden = slot.startswith("__") and not slot.endswith("__")
            found.append(f"_{base.__name__.lstrip('_')}{slot}" if hidden else slot)
    return found
