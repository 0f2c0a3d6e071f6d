"""Calls that run on the script's own objects: whether the names that their code uses are still bound as at the call.

Where they are not, the call runs with those that can be as they were (``flow_core.snapshot.rebinding``). Others it
cannot be given: another thread may set a name for the very purpose of telling a task that runs (``stop = True``), and
what code itself writes must be seen by others. So of these it is said that they are bound anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import is_
from types import CellType, FunctionType, ModuleType
from typing import Any, Protocol

from flow_core.guard import pass_signal
from flow_core.interfaces.snapshot import Identity
from flow_core.memo.code_facts import ABSENT, ModuleMember
from flow_core.memo.identity import identify
from flow_core.remote.functions import digest_of, pack_function
from flow_core.remote.own_modules import is_local
from flow_core.snapshot.finder import Finder, IdentityChecks
from flow_core.snapshot.rebinding import Fixed, Key, ReachableCode, fixed, written

# Exact types of values that lead to no other code: where only such were set anew, what is reached is the same.
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))

_Name = tuple[dict[str, Any], str]
_Variable = tuple[CellType, str]


class LiveNamesCallback(Protocol):
    """Callback for a call that begins while names are bound to something else than at the call. Any thread."""

    def __call__(self, call: object, live: tuple[str, ...], fixed: tuple[str, ...], /) -> object:
        """Take a call, the names that it sees as they are now, and those that it sees as they were."""
        ...


class LiveNames:
    """The names that a function and the code that it reaches use, as they were bound at a call. Any thread.

    A ``flow_core.interfaces.snapshot.Snapshot``, for calls that will not travel: should one do so all the same, its
    function travels as it is then.

    Attributes:
        stands: Tells whether all names are bound as they were.
        travels: False.
        watches: Whether there are any names.
    """

    __slots__ = ("_again", "_cells", "_fixed", "_function", "_names", "_reachable_code", "_tell", "_values") + (
        "stands",
        "travels",
        "watches",
    )

    def __init__(self, function: Callable[..., object], tell: LiveNamesCallback, again: bool = False) -> None:
        """Look now; ``again`` if names of the function were bound anew between calls before."""
        found = _NamesFinder(whole=False)
        code: tuple[FunctionType, ...] = ()
        try:
            found.begin(function)
            code = tuple(one for one in found.code if isinstance(one, FunctionType))
        # What was found so far is watched: an object that refuses to be looked at must not fail the call.
        except BaseException as error:  # of an object that is looked at
            pass_signal(error)
        names, cells = _kept(found)
        self._begin(
            tell, names, cells, again, ReachableCode(function, code, frozenset(found.shared), frozenset(found.members))
        )

    def _begin(
        self,
        tell: LiveNamesCallback,
        names: tuple[_Name, ...],
        cells: tuple[_Variable, ...],
        again: bool,
        reachable: ReachableCode,
    ) -> None:
        self._function, self._tell, self._names, self._cells = reachable.function, tell, names, cells
        self._again, self._reachable_code = again, reachable
        self._fixed: Fixed | None = None
        self._values = self._now()
        self.travels = False
        self.watches = bool(names or cells)
        checks = IdentityChecks()
        for (owner, name), value in zip(names, self._values, strict=False):
            checks.name(owner, name, value)
        for cell, _ in cells:
            checks.attribute(cell, "cell_contents")
        self.stands: Callable[[], bool] = checks.made(None) if self.watches else _always

    def renewed(self) -> LiveNames:
        """Return what is so now; where only plain values were set nothing need be searched for."""
        now = self._now()
        for before, after in zip(self._values, now, strict=True):
            # A function that is bound anew may name other things, so all is searched for again.
            if before is not after and not (type(before) in _PLAIN and type(after) in _PLAIN):
                return LiveNames(self._function, self._tell, again=True)
        # Without __init__, which would search again: in a sweep this happens at each call.
        made = LiveNames.__new__(LiveNames)
        made._begin(self._tell, self._names, self._cells, True, self._reachable_code)
        return made

    def changed(self) -> tuple[str, ...]:
        """Return the names that are bound anew and that calls may see as they were; none if that was so before."""
        return () if self._again else self._bound_anew(self._fixed_now())[1]

    def begins(self, call: object) -> Callable[..., object]:
        """Return the function to run for a call that begins: if names are bound anew, with what can be as it was.

        Once names were seen to change from call to call this is so from the beginning, since they will be bound anew
        while calls run, too.
        """
        stands = self.stands()
        if stands and not self._again:
            return self._function
        fixed = self._fixed_now()
        if not stands:
            self._say(call, fixed)
        return fixed.function

    def _fixed_now(self) -> Fixed:
        # Made when first needed: most calls begin before anything is bound anew.
        made = self._fixed
        if made is None:
            keys: list[Key] = [
                *((id(owner), name) for owner, name in self._names),
                *(id(cell) for cell, _ in self._cells),
            ]
            meant = {key: value for key, value in zip(keys, self._values, strict=True) if value is not ABSENT}
            made = self._fixed = fixed(self._reachable_code, meant)
        return made

    def _say(self, call: object, fixed: Fixed) -> None:
        live, as_they_were = self._bound_anew(fixed)
        if live or as_they_were:
            self._tell(call, live, as_they_were)

    def _bound_anew(self, fixed: Fixed) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names that are bound anew: those that calls see as they are, and as they were."""
        titles = [
            *((_title(owner, name), (id(owner), name) in fixed.keys) for owner, name in self._names),
            *((name, id(cell) in fixed.keys) for cell, name in self._cells),
        ]
        # By identity and not by equality: comparing might call code of the user's.
        same = map(is_, self._values, self._now())
        changed = [title for title, is_same in zip(titles, same, strict=True) if not is_same]
        return (
            tuple(name for name, is_fixed in changed if not is_fixed),
            tuple(name for name, is_fixed in changed if is_fixed),
        )

    def _now(self) -> tuple[object, ...]:
        return (*(owner.get(name, ABSENT) for owner, name in self._names), *(_content(cell) for cell, _ in self._cells))

    @property
    def digest(self) -> bytes:
        """Name of ``blob``. Raises as ``blob``."""
        return digest_of(self.blob)

    @property
    def blob(self) -> bytes:
        """The function as it would travel now. Raises SerializationError."""
        return pack_function(self._function)

    def identity(self) -> Identity:
        """Return what the function is now. Raises CannotDigest."""
        return identify(self._function)

    def changes(self) -> tuple[str, ...]:
        """Return nothing: the function is taken as it is."""
        return ()


def _always() -> bool:
    return True


def _content(cell: CellType) -> object:
    try:
        content: object = cell.cell_contents
    except ValueError:
        return ABSENT
    return content


def _title(owner: dict[str, Any], name: str) -> str:
    module = owner.get("__name__")
    return name if module in (None, "__main__") else f"{module}.{name}"


def _kept(found: Finder) -> tuple[tuple[_Name, ...], tuple[_Variable, ...]]:
    """Return names and variables of enclosing functions, but for those that the code itself writes, as a counter."""
    functions = [one for one in found.code if isinstance(one, FunctionType)]
    writes = {id(one): written(one.__code__) for one in functions}
    # By the dict of names and not by the name alone: two modules may use the same name.
    globals_written = {(id(one.__globals__), name) for one in functions for name in writes[id(one)]}
    names = tuple(
        (owner, name)
        for owner, name, value in found.named
        if (id(owner), name) not in globals_written and not _is_fixed(value)
    )
    pairs = [(one, name, cell) for one in functions for name, cell in _variables(one)]
    cells_written = {id(cell) for one, name, cell in pairs if name in writes[id(one)]}
    cells = {
        id(cell): (cell, name)
        for _, name, cell in pairs
        if id(cell) not in cells_written and not _is_fixed(_content(cell))
    }
    return names, tuple(cells.values())


def _variables(function: FunctionType) -> Iterator[tuple[str, CellType]]:
    """Yield the variables of enclosing functions that are set."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        if _content(cell) is not ABSENT:
            yield name, cell


def _is_fixed(value: object) -> bool:
    """Tell whether a value is surely not bound anew on purpose: modules, and code that is not the user's own."""
    if issubclass(type(value), ModuleType):
        return True
    try:
        return callable(value) and not is_local(getattr(value, "__module__", None))
    except BaseException as error:  # of an object that is looked at
        pass_signal(error)
        return False


class _NamesFinder(Finder):
    """Finds names alone: objects that stay where they are need not let themselves be pickled or read.

    Attributes:
        shared: Ids of functions that are reached otherwise than by a name.
        members: Names that are taken as attributes of modules.
    """

    def __init__(self, whole: bool) -> None:
        super().__init__(whole)
        self.shared: set[int] = set()
        self.members: set[tuple[int, str]] = set()
        self._wrapped: object = None

    def _function(self, function: FunctionType) -> None:
        self._wrapped = function.__dict__.get("__wrapped__")  # which a decorator leaves for people, and does not call
        super()._function(function)

    def _name(self, value: object, of_name: bool = False) -> None:
        if not of_name and value is not self._wrapped:
            self._share((value,))
        super()._name(value, of_name)

    def _member(self, member: ModuleMember) -> None:
        self.members.add((id(member.module.__dict__), member.attribute))
        self._share((member.value,))
        super()._member(member)

    def _push(self, values: Iterable[object]) -> None:
        held = tuple(values)
        self._share(held)
        super()._push(held)

    def _share(self, values: Iterable[object]) -> None:
        self.shared.update(id(value) for value in values if type(value) is FunctionType)

    def _array(self, value: Any) -> None:
        """Look at nothing: the elements of an array bind no names."""

    def _opaque(self, value: Any) -> None:
        self._functions_in(value)
