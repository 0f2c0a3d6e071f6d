"""Functions, classes and modules among the arguments of a call, as they are when the call is packed."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from flow_core.guard import pass_signal
from flow_core.memo.code_facts import OF_IMPORT, own_names
from flow_core.remote.callables import BroughtAlong
from flow_core.remote.functions import WITH_MODULES, digest_of, importable
from flow_core.remote.own_modules import is_local
from flow_core.snapshot.finder import FunctionLooks

_KEPT = 256  # functions, classes and modules; with more all are looked at anew. Only the magnitude matters
_SHORT = 256  # bytes; a shorter blob travels itself, since its digest would have to be asked for
_NONE: frozenset[str] = frozenset()


class _Known(NamedTuple):
    """Code (kept, so its id stays its own), what to look at to know whether it is so still, and what it brings."""

    code: object
    looks: FunctionLooks
    brought: BroughtAlong
    names: frozenset[str]
    """Of a module: the names that it had. Looks tell of changes of these, not of names that are new."""


class ArgumentCode:
    """Knows what code among arguments brings along. Any thread.

    Attributes:
        mentioned: Tells whether a pickle refers to a module of the user's own.
    """

    def __init__(self) -> None:
        self.mentioned = own_names.mentioned
        self._known: dict[int, _Known] = {}

    def brought(self, code: Any) -> BroughtAlong | None:
        """Return what a function, class or module brings along; None if it is not the user's own."""
        is_module = isinstance(code, ModuleType)
        module = code.__name__ if is_module else getattr(code, "__module__", None)
        if not isinstance(module, str) or not is_local(module):
            return None
        known = self._known.get(id(code))
        # Names that are new in a module show in no look at those that it had.
        names = frozenset(vars(code)) if is_module else _NONE
        if known is not None and known.names == names and known.looks.unchanged():
            return known.brought
        try:
            looks = FunctionLooks(code, True, attributes=names - OF_IMPORT)
            brought = _of_module(code, looks) if is_module else _of_code(code, module, looks)
        except BaseException as error:  # of an object that is looked at, or one that cannot be packed: pickle says it
            pass_signal(error)
            return None
        # All at once, and not what was asked for longest ago: that would have to be noted with each call of an app.
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[id(code)] = _Known(code, looks, brought, names)
        return brought


def _of_module(module: ModuleType, looks: FunctionLooks) -> BroughtAlong:
    from flow_core.snapshot.travel import packed_module, surroundings

    blob = packed_module(module, looks) if importable(module.__name__) else surroundings(looks)
    return _named(BroughtAlong(blob, importable(module.__name__), _covered(looks)))


def _named(brought: BroughtAlong) -> BroughtAlong:
    """Return the same with its digest, if that is much shorter than the blob."""
    return brought._replace(digest=digest_of(brought.blob)) if len(brought.blob) > _SHORT else brought


def _of_code(code: Any, module: str, looks: FunctionLooks) -> BroughtAlong:
    from flow_core.snapshot.travel import packed

    blob = packed(code, looks)
    # A class that no other process can import is packed, and unpickled, once for all objects of it.
    if blob[:1] == WITH_MODULES or (isinstance(code, type) and not importable(module)):
        return _named(BroughtAlong(blob, True, frozenset()))
    return BroughtAlong(b"", False, _covered(looks) if isinstance(code, FunctionType) else frozenset())


def _covered(looks: FunctionLooks) -> frozenset[int]:
    return frozenset((*map(id, looks.code), *map(id, looks.modules)))
