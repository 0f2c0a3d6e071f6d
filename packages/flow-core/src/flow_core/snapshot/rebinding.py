"""Functions that run on the script's own objects, with names bound as they were at a call.

A copy of the function runs, and copies of the helpers that it calls, among names of which some are fixed; all others
are the script's own, as they are when they are read. Which can be fixed:

* names that nobody else writes: no code of the module declares them ``global``, nor code of the enclosing function
  ``nonlocal``. Otherwise tasks may tell each other something by them.
* names that are no signals: neither True nor False, nor read in a ``while`` loop. Such a name a script sets in order to
  tell its tasks something, and a task that never saw it might never end.
* names that are read by nothing but functions that can be copied. Methods, functions in containers and attributes of
  modules are shared, whoever uses them: what these read is as it is.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple

from flow_core.memo.code_facts import facts_of

_SHARING = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
"""Instructions that go past what is missing in a dict, or would write into a copy."""
_ASKING = frozenset({"globals", "locals", "vars", "dir", "eval", "exec", "_getframe"})
"""Names by which code asks for all names."""
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE"})
_GLOBAL_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_CELL_WRITES = frozenset({"STORE_NAME", "STORE_DEREF", "DELETE_DEREF"})
_LOCALS = "<locals>"

Key = tuple[int, str] | int
"""A global name, after the id of the module's names; or the id of the cell of a variable of an enclosing function."""


class ReachableCode(NamedTuple):
    """Functions and names that a call reaches.

    Attributes:
        function: Its function.
        code: All functions that it reaches, its own too.
        shared: Ids of those that are reached otherwise than by a name: in containers, classes, modules.
        members: Names that are taken as attributes of modules.
    """

    function: Callable[..., object]
    code: tuple[FunctionType, ...]
    shared: frozenset[int]
    members: frozenset[tuple[int, str]]


class Fixed(NamedTuple):
    """A function among names that are fixed; itself if none can be."""

    function: Callable[..., object]
    keys: frozenset[Key]


class Names(dict[str, Any]):
    """Names of a module of which some are fixed: the interpreter asks the module for those that are missing here."""

    __slots__ = ("__missing__", "_own")

    def __init__(self, own: dict[str, Any]) -> None:
        # Names such as __name__ and __builtins__ the interpreter takes from the dict itself, past __missing__. Over a
        # copy of the names, since other threads may set some.
        super().__init__((name, own[name]) for name in tuple(own) if name[:2] == "__" and name[-2:] == "__")
        self._own = own
        # A method in C: the interpreter calls it for each name that is not fixed.
        self.__missing__ = own.__getitem__

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._own

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Any]:
        return {**self._own, **dict(dict.items(self))}  # whose own methods would ask the others here

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return what a name means."""
        try:
            return self[name]
        except KeyError:
            return default

    def keys(self) -> Any:
        """Return all names: the fixed ones and those of the module as they are now."""
        return self._all().keys()

    def values(self) -> Any:
        """Return what all names mean."""
        return self._all().values()

    def items(self) -> Any:
        """Return all names with what they mean."""
        return self._all().items()


def fixed(reachable: ReachableCode, meant: Mapping[Key, object]) -> Fixed:
    """Return a call's function with what can be fixed as it was. Any thread.

    Args:
        reach: What the call reaches.
        meant: What names meant at the call.
    """
    reads = _Reads(reachable, meant)
    function = _copies(reads).get(id(reachable.function))
    return Fixed(reachable.function, frozenset()) if function is None else Fixed(function, reads.keys)


class _Reads:
    """Which function reads which names, and reaches which other functions by them.

    Attributes:
        code: All functions, by their ids.
        meant: What names meant.
        keys: What can be fixed.
    """

    def __init__(self, reachable: ReachableCode, meant: Mapping[Key, object]) -> None:
        self.code = {id(one): one for one in reachable.code}
        self.meant = meant
        self._reads = {key: tuple(self._read_by(one)) for key, one in self.code.items()}
        # First what may be fixed at all, then which functions can be copied, then what is read by no function
        # that cannot be copied.
        self._free = set(self._all(self.code)) - self._taken(reachable.members)
        copied = self._reachable([id(reachable.function)], self._free_next, _is_plain)
        by_live = {one for key in copied for one in self._next(key) - self._free_next(key)}
        # All that is reached by functions which stay the script's own reads live names, however deep.
        shared = self._reachable((set(self.code) - copied) | reachable.shared | by_live, self._next, lambda _: True)
        self._copied = copied
        self.keys = frozenset((self._free & self._all(copied)) - self._all(shared))

    def needing(self) -> set[int]:
        """Return ids of functions that read what is fixed, themselves or by a helper."""
        found: set[int] = set()
        # Until nothing is added: a function needs a copy if one that it names does.
        while more := {key for key in self._copied - found if self._needs(key, found)}:
            found |= more
        return found

    def _needs(self, key: int, found: set[int]) -> bool:
        return not self.keys.isdisjoint(self._reads[key]) or not found.isdisjoint(self._free_next(key))

    def _all(self, functions: Iterable[int]) -> set[Key]:
        return {key for function in functions for key in self._reads[function]}

    def _reachable(
        self, begin: Iterable[int], further: Callable[[int], set[int]], may: Callable[[CodeType], bool]
    ) -> set[int]:
        found: set[int] = set()
        left = [key for key in begin if key in self.code]
        while left:
            key = left.pop()
            if key not in found and may(self.code[key].__code__):
                found.add(key)
                left.extend(further(key))
        return found

    def _next(self, function: int) -> set[int]:
        """Return ids of functions that one names."""
        return self.code.keys() & {id(self.meant[key]) for key in self._reads[function]}

    def _free_next(self, function: int) -> set[int]:
        """Return ids of functions that one names by names that may be fixed."""
        return self.code.keys() & {id(self.meant[key]) for key in self._reads[function] if key in self._free}

    def _read_by(self, function: FunctionType) -> Iterator[Key]:
        keys: list[Key] = [(id(function.__globals__), name) for name in facts_of(function.__code__).names]
        keys += map(id, function.__closure__ or ())
        return (key for key in keys if key in self.meant)

    def _taken(self, members: frozenset[tuple[int, str]]) -> set[Key]:
        """Return names by which the script, or tasks, may tell something to tasks that run."""
        # True and False are flags by which scripts stop tasks; a fixed one would never be seen to change.
        polled = _polled(self.code.values())
        found: set[Key] = {key for key, value in self.meant.items() if isinstance(value, bool)} | members
        # Once for each module and not for each function of it.
        owners = {id(one.__globals__): one.__globals__ for one in self.code.values()}
        for identity, names in owners.items():
            found.update((identity, name) for name in polled | _written_in(names))
        for function in self.code.values():
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
                if name in polled or _is_written_beside(function, name):
                    found.add(id(cell))
        return found


def _copies(reads: _Reads) -> dict[int, FunctionType]:
    """Return copies of functions among fixed names, by the ids of the functions."""
    owners: dict[int, Names] = {}
    cells: dict[int, CellType] = {}
    made: dict[int, FunctionType] = {}
    for identity in reads.needing():
        function = reads.code[identity]
        names = owners.setdefault(id(function.__globals__), Names(function.__globals__))
        closure = (_held(cell, reads.keys, cells) for cell in function.__closure__ or ())
        made[identity] = _copy(function, names, tuple(closure))
    for key in reads.keys:
        value = reads.meant[key]
        # Copies name copies: else the helper of a copy would read live names again.
        value = made.get(id(value), value)
        if isinstance(key, int):
            cells[key].cell_contents = value
        else:
            owners[key[0]][key[1]] = value
    return made


def _held(cell: CellType, keys: frozenset[Key], cells: dict[int, CellType]) -> CellType:
    return cells.setdefault(id(cell), CellType()) if id(cell) in keys else cell


def _copy(function: FunctionType, names: Names, closure: tuple[CellType, ...]) -> FunctionType:
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, closure or None)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__ = function.__dict__  # the same: attributes are shared
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    made.__annotations__ = function.__annotations__
    return made


@lru_cache(maxsize=1024)
def _is_plain(code: CodeType) -> bool:
    """Tell whether code does nothing by which fixed names would show, or be written to."""
    return (
        _ASKING.isdisjoint(code.co_names)
        and all(instruction.opname not in _SHARING for instruction in dis.get_instructions(code))
        and all(_is_plain(one) for one in code.co_consts if isinstance(one, CodeType))
    )


def _polled(functions: Iterable[FunctionType]) -> set[str]:
    """Return names that are read in ``while`` loops, also by functions that are named there."""
    # By name: the loop calls a helper by its name, which may stand for several; all of them count.
    known = {one.__name__: one for one in functions}
    found: set[str] = set()
    left = [name for one in known.values() for name in _polled_in(one.__code__)]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            if name in known:
                left.extend(_loaded(known[name].__code__))
    return found


@lru_cache(maxsize=1024)
def _polled_in(code: CodeType) -> frozenset[str]:
    instructions = list(dis.get_instructions(code))
    found = {name for one in code.co_consts if isinstance(one, CodeType) for name in _polled_in(one)}
    kinds = {one.offset: one.opname for one in instructions}
    for jump in instructions:
        target = jump.argval
        if "JUMP" not in jump.opname or not isinstance(target, int) or target > jump.offset:
            continue
        # A jump back ends a loop; one to FOR_ITER ends a for loop, which does not wait for a name to change.
        if kinds.get(target) != "FOR_ITER":
            for one in instructions:
                if target <= one.offset <= jump.offset:
                    found.update(_loaded_by(one))
    return frozenset(found)


@lru_cache(maxsize=1024)
def _loaded(code: CodeType) -> frozenset[str]:
    return frozenset(name for one in dis.get_instructions(code) for name in _loaded_by(one))


def _loaded_by(instruction: dis.Instruction) -> Iterable[str]:
    """Return names that an instruction loads, or those of the code that it loads."""
    if instruction.opname in _LOADS:
        return (str(instruction.argval),)
    return _loaded(instruction.argval) if isinstance(instruction.argval, CodeType) else ()


def _written_in(names: dict[str, Any]) -> set[str]:
    """Return names that code of a module declares ``global``, as far as the module names that code."""
    found: set[str] = set()
    for value in tuple(names.values()):
        for one in tuple(vars(value).values()) if type(value) is type else (value,):
            code = _code_of(one)
            if code is not None:
                found |= _globals_written(code)
    return found


def _code_of(value: object) -> CodeType | None:
    """Return the code of a function, also below decorators."""
    # A bound for decorators, whose __wrapped__ may lead in a circle.
    for _ in range(8):
        if type(value) is FunctionType:
            wrapped = value.__dict__.get("__wrapped__")
            if wrapped is None:
                return value.__code__
            value = wrapped
        else:
            try:
                # Past __getattr__ of the user's, which may do anything.
                value = object.__getattribute__(value, "__dict__").get("__wrapped__")
            except AttributeError:
                return None
    return None


def written(code: CodeType) -> frozenset[str]:
    """Return names that code binds beyond itself, and that code nested in it does."""
    return _globals_written(code) | _bound(code, _CELL_WRITES)


def _globals_written(code: CodeType) -> frozenset[str]:
    return _bound(code, _GLOBAL_WRITES)


@lru_cache(maxsize=4096)
def _bound(code: CodeType, operations: frozenset[str]) -> frozenset[str]:
    found = {str(one.argval) for one in dis.get_instructions(code) if one.opname in operations}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _bound(constant, operations)
    return frozenset(found)


def _is_written_beside(function: FunctionType, name: str) -> bool:
    """Tell whether code that is nested beside a function writes a variable that both know, or may."""
    parts = function.__code__.co_qualname.split(f".{_LOCALS}.")  # its own, whatever decorators say
    code = _code_of(function.__globals__.get(parts[0]))
    for part in parts[1:-1]:
        code = next((one for one in _nested(code) if one.co_name == part), None)
    beside = _nested(code)
    if not any(one is function.__code__ for one in beside):
        return True  # its enclosing function is not found, so another writer may exist
    return any(name in one.co_freevars and name in written(one) for one in beside)


def _nested(code: CodeType | None) -> list[CodeType]:
    return [] if code is None else [one for one in code.co_consts if isinstance(one, CodeType)]
