"""Names of classes and functions in pickles: unpickling these calls code that is not Flow's, which may hang."""

from __future__ import annotations

import io
import pickle
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Protocol 4 and later name classes and functions by this opcode alone.
_STACK_GLOBAL: Final = b"\x93"
# Bytes. A longer pickle takes its time to unpickle anyway, so it goes to another thread without a search.
_SEARCHED: Final = 1 << 16


def names_globals(data: bytes | bytearray | memoryview) -> bool:
    """Tell whether a pickle of protocol 4 or later may name a class or function; errs on the side of yes.

    It does if it is long (64 KiB: what takes its time to unpickle anyway) or holds the opcode's byte anywhere.
    """
    return len(data) > _SEARCHED or _STACK_GLOBAL in bytes(data)


class NamesOthers(Exception):
    """A pickle names something that is not of the libraries known here, or whose module is not imported yet."""


# Libraries whose classes unpickle without calling code of the user's: dates and arrays took another thread's turn
# before.
_LIBRARIES: Final = frozenset(
    ("numpy", "datetime", "decimal", "fractions", "pathlib", "uuid", "collections", "_codecs")
)
_BUILTINS: Final = frozenset(("set", "frozenset", "bytearray", "complex", "range", "slice"))


class _KnownOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        """Return what is named, if it is of a known library that is loaded. Raises NamesOthers."""
        library = module.partition(".")[0]
        known = name in _BUILTINS if module == "builtins" else library in _LIBRARIES
        # A module that is not loaded would be imported by this thread, which may take long.
        if not known or library not in sys.modules:
            raise NamesOthers
        return super().find_class(module, name)


def loads_at_once(data: bytes | bytearray | memoryview) -> object:
    """Unpickle what surely calls no code of the user's.

    Raises:
        NamesOthers: it may call some, and nothing of it was called.
        Exception: whatever unpickling raises.
    """
    return loads_known(data) if names_globals(data) else pickle.loads(data)


def loads_known(data: bytes | bytearray | memoryview) -> object:
    """Unpickle what holds nothing but builtin types and those of some libraries: numbers, arrays, dates, paths.

    Raises:
        NamesOthers: it holds something else, or is long (64 KiB); nothing of it was called.
        Exception: whatever unpickling raises.
    """
    if len(data) > _SEARCHED:
        raise NamesOthers
    return _KnownOnly(io.BytesIO(data)).load()
