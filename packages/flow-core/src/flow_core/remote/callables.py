"""Functions, classes and modules among the arguments of a call: they travel with what they name, as apps do.

What of that there is, at whatever depth of containers and objects, shows as pickle meets it. Most arguments have
nothing of it: that is seen by the names of modules in their pickle, so they are pickled once, as fast as pickle can.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import NamedTuple, Protocol

from flow_core.guard import pass_signal
from flow_core.remote import reductions
from flow_core.remote.fetching import fetched
from flow_core.remote.functions import needs_care

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from flow_core.remote.modules import Surroundings

_CLASSES_MAX = 64  # classes that are kept; few tasks have objects of many
_CLASS_BYTES = 64 << 10  # bytes of the blob of one of them, so that all take 4 MiB at most
_PROTOCOL = 5  # of pickle; ``mentioned`` reads the opcodes of this one


class BroughtAlong(NamedTuple):
    """Code and data that a function, class or module brings along.

    Attributes:
        blob: A blob for ``load_function``; empty where there is nothing to bring.
        replaces: Whether the blob's function stands for the object itself; else it is pickled as usual, and the blob
            only says what modules are to be.
        covers: Identities of code and modules that this is enough for, too.
        digest: Name of the blob, if it is worth while to send that instead where the other side can ask for the blob.
    """

    blob: bytes
    replaces: bool
    covers: frozenset[int]
    digest: bytes = b""


class Packing(Protocol):
    """Interface to what knows the user's own code; only the process of the script has one. Any thread."""

    @property
    def mentioned(self) -> Callable[[bytes], bool]:
        """Function that tells of a pickle whether it may refer to a module of the user's own."""
        ...

    def brought(self, code: object) -> BroughtAlong | None:
        """Return what a function, class or module brings along; None if it is not the user's own."""
        ...


_packing: Packing | None = None


def report_packing(packing: Packing | None) -> None:
    """Have code among arguments bring along what it names; with None it travels as pickle says."""
    global _packing
    _packing = packing


def packing() -> Packing | None:
    """Return the packing that this process was given last; None in workers. Any thread."""
    return _packing


def pickled_simply(
    value: object, on_buffer: Callable[[pickle.PickleBuffer], bool | None] | None = None
) -> bytes | None:
    """Return arguments as pickle gives them; None where ``flow_core.remote.bringing`` must do it."""
    data = pickled_by_name(value, on_buffer)
    return None if data is None or mentions_own(data) else data


def pickled_by_name(
    value: object, on_buffer: Callable[[pickle.PickleBuffer], bool | None] | None = None
) -> bytes | None:
    """Return arguments as pickle gives them, without what code in them names; None where that does not do."""
    try:
        data = _dumps(value, on_buffer)
    except BaseException as error:  # whatever an object's __reduce__ raises
        pass_signal(error)
        return None
    return None if needs_care(data) else data


def _dumps(value: object, on_buffer: Callable[[pickle.PickleBuffer], bool | None] | None) -> bytes:
    if not reductions.are_given():
        return pickle.dumps(value, _PROTOCOL, buffer_callback=on_buffer)
    with io.BytesIO() as file:
        _KnownPickler(file, _PROTOCOL, buffer_callback=on_buffer).dump(value)
        return file.getvalue()


class _KnownPickler(pickle.Pickler):
    """What pickle's own does, but for objects that have said before how they are made anew."""

    def reducer_override(self, obj: object) -> Any:
        """Return how an object is made anew."""
        said = reductions.known(obj)
        return NotImplemented if said is None else said


def mentions_own(data: bytes) -> bool:
    """Tell whether a pickle may refer to a module of the user's own."""
    # Without that opcode it names nothing at all: most arguments are lists and dicts of plain data.
    return _packing is not None and pickle.STACK_GLOBAL in data and _packing.mentioned(data)


def arrived(blob: bytes) -> object:
    """Return code that was sent. Raises as ``flow_core.remote.functions.load_function``."""
    known = _classes.get(blob)
    function: object
    if known is None:
        # Imported here: that module asks this one for what it needs.
        from flow_core.remote.functions import load_function

        function, surroundings = load_function(blob, of_argument=True)
        # A class is the same object each time; a function by value is made anew.
        if isinstance(function, type) and surroundings is not None and len(blob) <= _CLASS_BYTES:
            if len(_classes) >= _CLASSES_MAX:
                _classes.clear()
            _classes[blob] = function, surroundings
    else:
        function, surroundings = known
    if surroundings is not None:
        surroundings.prepare(of_argument=True)
    return function


_classes: dict[bytes, tuple[object, Surroundings]] = {}
"""Classes that came with arguments: of one that comes with each task the blob need be unpickled once."""


def prepared(blobs: Iterable[bytes], digests: Iterable[bytes]) -> None:
    """Have modules be what arguments need. Raises as ``arrived`` and ``arrived_as``."""
    for blob in blobs:
        arrived(blob)
    for digest in digests:
        arrived_as(digest)


def arrived_as(digest: bytes) -> object:
    """Return code of which the digest was sent.

    Raises:
        DeserializationError: its blob cannot be had here. And as ``arrived``.
    """
    return arrived(fetched(digest))


def arrived_by_name(
    data: bytes,
    sent: Iterable[tuple[str, str, bytes]],
    sent_whole: Iterable[tuple[str, str, bytes]],
    blobs: Iterable[bytes],
    digests: Iterable[bytes],
) -> object:
    """Return arguments whose pickle names code, with that code as it was sent. Raises as ``prepared`` and unpickling.

    Args:
        data: The pickle.
        sent: Modules, paths in them, and digests of what stands for the code there.
        sent_whole: The same with blobs.
        blobs: What arguments need besides, as ``prepared`` takes it.
        digests: The same.
    """
    code = {(module, path): arrived_as(digest) for module, path, digest in sent}
    code.update({(module, path): arrived(blob) for module, path, blob in sent_whole})
    # pickle's own unpickler in C does it then; the subclass below asks Python about each name.
    if all(_is_here(*name, one) for name, one in code.items()):  # most: the code here is that of the script
        value = pickle.loads(data)
    else:
        value = _SentCodeUnpickler(data, code).load()
    # After the arguments: only they import the modules that are to be prepared.
    prepared(blobs, digests)
    return value


def _is_here(module: str, path: str, code: object) -> bool:
    found: object = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found is code


class _SentCodeUnpickler(pickle.Unpickler):
    """Takes code that was sent for that of its name here."""

    def __init__(self, data: bytes, code: Mapping[tuple[str, str], object]) -> None:
        super().__init__(io.BytesIO(data))
        self._code = code

    def find_class(self, module: str, name: str) -> object:
        """Return what is named."""
        if (module, name) in self._code:
            return self._code[module, name]
        return super().find_class(module, name)


def first(value: object, _then: object) -> object:
    """Return arguments, once pickle has prepared the modules that came with them."""
    return value
