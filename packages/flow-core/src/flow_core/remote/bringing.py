"""Arguments as bytes, with code that no other process can import, and with what the code in them names."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from flow_core.guard import pass_signal
from flow_core.remote import by_value, reductions
from flow_core.remote.caches import CachedFunction
from flow_core.remote.callables import (
    BroughtAlong,
    arrived,
    arrived_as,
    arrived_by_name,
    first,
    mentions_own,
    packing,
    pickled_by_name,
    prepared,
)
from flow_core.remote.functions import by_value_names, needs_care
from flow_core.remote.mentioned import mentioned
from flow_core.remote.pickling_attributes import may_leave_out, reduced_whole

_PROTOCOL = 5  # of pickle; the newest in all supported versions, and the one with buffers beside the bytes
# Kinds of objects that stand for code; functions are asked for by themselves, since most are plain ones.
_CODE = (type, ModuleType, CachedFunction)
# The functions by which a pickle of this module is read; they must go by name, or they would bring themselves along.
_OURS = frozenset((arrived, arrived_as, first, prepared))

_BEGIN = pickle.PROTO + bytes((_PROTOCOL,))
_BY_NAME = _BEGIN + f"c{arrived_by_name.__module__}\n{arrived_by_name.__name__}\n".encode()
# Ends a pickle that calls the function of _BY_NAME with what stands between them.
_CALLED = pickle.REDUCE + pickle.STOP

OnBuffer = Callable[[pickle.PickleBuffer], "bool | None"]
OnCode = Callable[[bytes, bytes], object]


def pickled_arguments(
    value: object,
    on_buffer: OnBuffer | None = None,
    forget: Callable[[], object] | None = None,
    on_code: OnCode | None = None,
) -> bytes:
    """Return arguments as bytes, whatever is in them, at the least cost. Arguments and errors as ``pickled_with_code``.

    Most of those with objects of the user's own classes are as pickle gives them, with the code that it names beside
    them: that takes half the time of a pickler that asks Python about each object.
    """
    data = None if _has_own(value) else pickled_by_name(value, on_buffer)
    if data is not None:
        whole = _completed(data, on_code) if mentions_own(data) else data
        if whole is not None:
            return whole
    # What on_buffer was given by the attempt above is void.
    if forget is not None:
        forget()
    return pickled_with_code(value, on_buffer, forget, on_code)


def _has_own(value: object) -> bool:
    """Tell of arguments, as far as that shows at once, whether some are objects of the script's own classes.

    Pickle alone would not do for these, and to try it would call their ``__reduce__`` once more.
    """
    if type(value) is not tuple:
        return False
    for one in value:
        kind = type(one)
        items = one if kind is tuple or kind is list else one.values() if kind is dict else (one,)
        for item in items:
            if type.__getattribute__(type(item), "__module__") == "__main__":
                return True
    return False


def _completed(data: bytes, on_code: OnCode | None) -> bytes | None:
    """Return a pickle of arguments with the code that it names; None where that does not do."""
    found = mentioned(data)
    # Buffers travel beside the pickle, and this one is going to lie within another.
    if found is None or pickle.NEXT_BUFFER in data:
        return None
    needs, known = Needs(on_code), by_value_names()
    sent, whole = [], []
    for (module, path), code in found.items():
        kind = type(code)
        # Objects of such classes have attributes that this pickle lacks.
        if isinstance(code, type) and may_leave_out(code):
            return None
        if kind is not FunctionType and not issubclass(kind, _CODE):
            continue
        # Asked once for each code object and not once for each object of its class.
        brought = needs.stand_in(code)
        if brought is not None and needs.sent_as_digest(brought):
            sent.append((module, path, brought.digest))
        elif brought is not None:
            whole.append((module, path, brought.blob))
    # A module was found just now that no other process can import.
    if by_value_names() is not known and needs_care(data):
        return None
    given = (data, tuple(sent), tuple(whole), tuple(needs.blobs), tuple(needs.digests))
    # MEMOIZE stands where STOP was, so that the frame is as long as it says.
    return b"".join((_BY_NAME, pickle.dumps(given, _PROTOCOL)[len(_BEGIN) : -1], pickle.MEMOIZE, _CALLED))


def pickled_with_code(
    value: object,
    on_buffer: OnBuffer | None = None,
    forget: Callable[[], object] | None = None,
    on_code: OnCode | None = None,
) -> bytes:
    """Return arguments as bytes, with what code in them names of the user's own modules, as it is now. Any thread.

    Args:
        value: The arguments.
        on_buffer: Is given large buffers, as by pickle.
        forget: Called before they are pickled once more: what ``on_buffer`` was given before is void.
        on_code: Is given digests and blobs of code of which only the digests are in the result: the process that
            unpickles it asks for the blobs (``flow_core.remote.fetching.report_fetching``). Without it the blobs are in
            the result.

    Raises:
        Exception: whatever the value's own methods or cloudpickle raise when something cannot be pickled.
    """
    try:
        # By name first, which is much cheaper for objects; whether that did shows in the names within the bytes.
        data = _pickled(_ByNamePickler, value, on_buffer, on_code)
        if not any(name in data for name in by_value_names()):
            return data
    except BaseException as error:
        pass_signal(error)
    if forget is not None:
        forget()
    return _pickled(_ByValuePickler, value, on_buffer, on_code)


def _pickled(
    kind: Callable[..., _Bringing], value: object, on_buffer: OnBuffer | None, on_code: OnCode | None
) -> bytes:
    with io.BytesIO() as file:
        pickler = kind(file, _PROTOCOL, buffer_callback=on_buffer)
        # A second try begins with needs of its own: what the first one had met may be packed otherwise.
        pickler.needs = Needs(on_code)
        pickler.dump(_Whole(value))
        return file.getvalue()


class _Needed:
    """Placeholder that is pickled after the arguments, as what code in them needs: that is known only then."""


class _Whole:
    """Arguments, and what is pickled after them."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, _Needed]]:
        # The order matters: pickle writes the value first, and only then is known what code in it needs.
        return first, (self._value, _Needed())


class Needs:
    """Needs of code among arguments, gathered as it is met.

    Attributes:
        blobs: Blobs that say what modules are to be.
        digests: Digests of such blobs that were handed out.
    """

    def __init__(self, on_code: OnCode | None) -> None:
        self.blobs: dict[bytes, None] = {}
        self.digests: dict[bytes, None] = {}
        self._on_code = on_code
        self._packing = packing()
        # Ids of code and modules that something met before brings along, so that nothing travels twice.
        self._covered: set[int] = set()

    def stand_in(self, code: object) -> BroughtAlong | None:
        """Return what stands for code, if something does; note what else it needs."""
        if self._packing is None or id(code) in self._covered:
            return None
        brought = self._packing.brought(code)
        if brought is None:
            return None
        # The blob stands for the object itself; else the object goes by name and the blob says what its module is to
        # be.
        if brought.replaces and brought.blob:
            return brought
        self._covered |= brought.covers
        if self.sent_as_digest(brought):
            self.digests[brought.digest] = None
        elif brought.blob:
            self.blobs[brought.blob] = None
        return None

    def sent_as_digest(self, brought: BroughtAlong) -> bool:
        """Tell whether the digest of a blob is enough; the blob is handed out then."""
        if self._on_code is None or not brought.digest:
            return False
        self._on_code(brought.digest, brought.blob)
        return True


class _Bringing:
    """Base of both picklers: code among the arguments brings along what it names."""

    needs: Needs
    dump: Callable[[object], None]

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made anew."""
        kind = type(obj)
        if kind is FunctionType or issubclass(kind, _CODE):
            if kind is FunctionType and obj in _OURS:
                return NotImplemented
            brought = self.needs.stand_in(obj)
            if brought is not None:
                by_digest = self.needs.sent_as_digest(brought)
                return (arrived_as, (brought.digest,)) if by_digest else (arrived, (brought.blob,))
        elif kind is _Needed:
            return prepared, (tuple(self.needs.blobs), tuple(self.needs.digests))
        said = reductions.known(obj)
        return self._reduced(obj) if said is None else said

    def _reduced(self, obj: Any) -> Any:
        return reduced_whole(obj)


class _ByNamePickler(_Bringing, pickle.Pickler):
    """Pickles what other processes can import. An object of a class costs it much less than the other pickler."""


class _ByValuePickler(_Bringing, by_value.ByValuePickler):
    """Pickles code that no other process can import by value."""

    def _reduced(self, obj: Any) -> Any:
        return by_value.ByValuePickler.reducer_override(self, obj)
