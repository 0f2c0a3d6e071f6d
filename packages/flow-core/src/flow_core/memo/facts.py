"""What code says of itself: its digest, the globals it names, and what it names of the user's own modules."""

from __future__ import annotations

import dis
import inspect
import os
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import resolve_name
from types import CellType, CodeType, FunctionType, ModuleType
from typing import NamedTuple, TypeGuard

from flow_core.files import File
from flow_core.memo.digest import Walker, digest, frame

_LOADED_AT = time.time()
_PYTHON = frame(b"V", f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}".encode())
_HAS_DOCSTRING = 0x4000000
_FACTS_MAX = 8192
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_OUR_OWN = frozenset(
    {"flow", "flow_core", "flow_executors", "flow_providers", "flow_staging", "flow_monitor", "flow_viz"}
)

Chain = tuple[str, ...]
"""A name and attributes of it, of these of these, as ``("package", "settings", "LIMIT")``."""


class Facts:
    """What a code object says for itself, with the code nested in it.

    Attributes:
        code: The code.
        digest: Its digest.
        names: The globals it names.
        chains: Names (globals, or variables of enclosing functions) with the attributes that it takes of them.
        imports: The same, beginning with modules that it imports itself; relative ones have their dots.
        values: Names, and chains, that it uses otherwise than to take an attribute at once.
        imported_values: The same, beginning with modules that it imports itself.
        attributes: All attributes that it takes, of whatever.
    """

    __slots__ = (
        *("_source", "attributes", "chains", "code", "digest", "imported_values", "imports", "names", "values"),
    )

    def __init__(self, code: CodeType, digest: bytes, scan: _Scan) -> None:
        self.code = code
        self.digest = digest
        self.names: Chain = tuple(sorted(scan.names))
        self.chains = tuple(sorted(scan.chains))
        self.imports = tuple(sorted(scan.imports))
        self.values = tuple(sorted(scan.values))
        self.imported_values = tuple(sorted(scan.imported_values))
        self.attributes = frozenset(scan.attributes)
        self._source: tuple[bytes | None] | None = None

    @property
    def source(self) -> bytes | None:
        """Digest of its source; None where that is not at hand. Looked up when first asked for."""
        if self._source is None:
            self._source = (_source_digest(self.code),)
        return self._source[0]


ABSENT = object()
"""The value of a Member that its module has not."""


class Member(NamedTuple):
    """What a function names of a module of the user's own: the module, the attribute, its value, all as one path.

    ``imported`` where the function imports the module itself.
    """

    module: ModuleType
    attribute: str
    value: object
    path: str
    imported: bool


def members(function: FunctionType, facts: Facts) -> Iterator[Member]:
    """Yield what a function names of modules that are the user's own, through modules in modules too."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    for chain in facts.chains:
        yield from _along(_base(function, cells, chain[0]), chain, False)
    for chain in facts.imports:
        yield from _along(_imported(function, chain[0]), chain, True)


def held(function: FunctionType, facts: Facts) -> Iterator[tuple[ModuleType, bool]]:
    """Yield modules of the user's own that a function uses as values (``s = settings``); whether it imports them."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    for chain in facts.values:
        yield from _held(_base(function, cells, chain[0]), chain, False)
    for chain in facts.imported_values:
        yield from _held(_imported(function, chain[0]), chain, True)


def _held(value: object, chain: Chain, imported: bool) -> Iterator[tuple[ModuleType, bool]]:
    for attribute in chain[1:]:
        value = value.__dict__.get(attribute) if _is_module(value) else None
    if _is_module(value) and is_local(value.__name__):
        yield value, imported


def _is_module(value: object) -> TypeGuard[ModuleType]:
    """Tell without asking the object, which may be hostile."""
    return issubclass(type(value), ModuleType)


def _base(function: FunctionType, cells: dict[str, CellType], name: str) -> object:
    if name in cells:
        try:
            content: object = cells[name].cell_contents
        except ValueError:
            content = None
        return content
    return function.__globals__.get(name)


def _imported(function: FunctionType, name: str) -> object:
    package = function.__globals__.get("__package__")
    try:
        return sys.modules.get(resolve_name(name, package if isinstance(package, str) else None))
    except ImportError:
        return None


def _along(value: object, chain: Chain, imported: bool) -> Iterator[Member]:
    for depth in range(1, len(chain)):
        attribute = chain[depth]
        if not _is_module(value) or not is_local(value.__name__):
            return
        module, value = value, value.__dict__.get(attribute, ABSENT)
        yield Member(module, attribute, value, ".".join(chain[: depth + 1]), imported)


@lru_cache(maxsize=1024)
def is_local(module: str | None) -> bool:
    """Tell whether a module is the user's own: neither of Flow, nor of the standard library, nor installed."""
    if module is None or module == "__main__":
        return True
    top = module.partition(".")[0]
    if top in _OUR_OWN or top in sys.stdlib_module_names:
        return False
    path = getattr(sys.modules.get(module), "__file__", None)
    return not isinstance(path, str) or not os.path.realpath(path).startswith(_installed_prefixes())


def is_of_process(value: object) -> bool:
    """Tell whether each process has its own of this, such as loggers, and runs and futures of Flow."""
    top = type(value).__module__.partition(".")[0]
    return top == "logging" or (top in _OUR_OWN and not isinstance(value, File))


@lru_cache(maxsize=1)
def _installed_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(os.path.join(os.path.realpath(paths[name]), "") for name in names if paths.get(name))


_known: dict[int, Facts] = {}


def facts_of(code: CodeType) -> Facts:
    """Return the facts of a code object; kept, since a script calls few functions many times."""
    facts = _known.get(id(code))
    if facts is None:
        facts = _look_at(code)
        if len(_known) >= _FACTS_MAX:
            _known.clear()
        _known[id(code)] = facts
    return facts


def _look_at(code: CodeType) -> Facts:
    scan = _Scan()
    first_constant_used = False
    for instruction in dis.get_instructions(code):
        scan.take(instruction.opname, instruction.argval)
        if instruction.opcode in dis.hasconst and instruction.arg == 0:
            first_constant_used = True
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            scan.take_inner(facts_of(constant))
    scan.finish()
    return Facts(code, _code_digest(code, skip_docstring=not first_constant_used and _has_docstring(code)), scan)


class _Scan:
    """What instructions name, taken one after the other."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.chains: set[Chain] = set()
        self.imports: set[Chain] = set()
        self.values: set[Chain] = set()
        self.imported_values: set[Chain] = set()
        self.attributes: set[str] = set()
        self._bound: dict[str, Chain] = {}  # variables that hold what was imported
        self._constants: list[object] = []
        self._nested = False
        self._module: Chain | None = None  # what the last IMPORT_NAME left on the stack
        self._import: Chain | None = None  # what is on the stack, from an import
        self._last: tuple[Chain, bool] | None = None  # what is on the stack, and whether it begins with a module

    def take(self, operation: str, given: object) -> None:
        """Take the next instruction."""
        if operation == "EXTENDED_ARG":  # the instruction itself comes next
            return
        last, self._last = self._last, None
        if operation in _ATTRIBUTES:
            self.attributes.add(str(given))
            if last is not None:
                self._attribute(last[0] + (str(given),), last[1])
            return
        self._as_value(last)
        if operation in _GLOBALS:
            self.names.add(str(given))
            self._load(str(given))
        elif operation.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF", "STORE_FAST")):
            self._local(operation, given if isinstance(given, tuple) else (given,))
        elif operation.startswith("STORE_"):
            self._store(str(given))
        elif operation == "IMPORT_NAME":
            self._import_name(str(given))
        elif operation == "IMPORT_FROM" and self._module is not None:
            self._import = (*((self._nested and self._import) or self._module), str(given))
            self.imports.add(self._import)
        elif operation.startswith("LOAD_CONST") or operation == "LOAD_SMALL_INT":
            self._constants = [*self._constants[-1:], given]

    def finish(self) -> None:
        """Take the end."""
        self._as_value(self._last)

    def take_inner(self, inner: Facts) -> None:
        """Take what nested code names; variables of the outer code may hold imported modules."""
        self.names.update(inner.names)
        self.imports.update(inner.imports)
        self.imported_values.update(inner.imported_values)
        self.attributes.update(inner.attributes)
        for chain in inner.values:
            bound = self._bound.get(chain[0])
            if bound is None:
                self.values.add(chain)
            else:
                self.imported_values.add(bound + chain[1:])
        for chain in inner.chains:
            bound = self._bound.get(chain[0])
            if bound is None:
                self.chains.add(chain)
            else:
                self.imports.add(bound + chain[1:])

    def _local(self, operation: str, names: tuple[object, ...]) -> None:
        """Take a load or a store of variables; newer Pythons have both, and two of each, in one instruction."""
        kinds = [word for word in operation.split("_") if word in ("LOAD", "STORE")]
        for kind, name in zip(kinds * 2, names, strict=False):
            if kind == "STORE":
                self._store(str(name))
            else:
                self._load(str(name))

    def _as_value(self, last: tuple[Chain, bool] | None) -> None:
        """Take what was on the stack as used otherwise than to take an attribute of it."""
        if last is not None:
            (self.imported_values if last[1] else self.values).add(last[0])

    def _load(self, name: str) -> None:
        self._as_value(self._last)
        bound = self._bound.get(name)
        self._last = ((name,), False) if bound is None else (bound, True)

    def _attribute(self, chain: Chain, imported: bool) -> None:
        (self.imports if imported else self.chains).add(chain)
        self._last = (chain, imported)

    def _store(self, name: str) -> None:
        if self._import is not None:
            self._bound[name] = self._import
        self._import = None

    def _import_name(self, name: str) -> None:
        level, names = [0, None, *self._constants][-2:]
        self._nested = names is None  # ``import a.b as c`` takes b of a
        dots = "." * level if isinstance(level, int) else ""
        self._module = (name.partition(".")[0],) if self._nested else (dots + name,)
        self._import = self._module if self._nested else None


def _has_docstring(code: CodeType) -> bool:
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    return bool(is_function and code.co_consts and isinstance(code.co_consts[0], str))


def _code_digest(code: CodeType, *, skip_docstring: bool) -> bytes:
    walker = Walker()
    constants = [
        facts_of(constant).digest if isinstance(constant, CodeType) else walker.encode(constant)
        for constant in code.co_consts
    ]
    if skip_docstring:
        constants[0] = b"docstring"
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    parts = (code.co_code, getattr(code, "co_exceptiontable", b""), shape, names, tuple(constants))
    return digest(_PYTHON + walker.encode(parts))


def _source_digest(code: CodeType) -> bytes | None:
    """Return the digest of a function's source; None where it is not at hand or was edited since it was loaded."""
    try:
        if os.path.exists(code.co_filename) and os.stat(code.co_filename).st_mtime > _LOADED_AT:
            return None
        lines = textwrap.dedent(inspect.getsource(code)).splitlines()
    except (OSError, TypeError, IndexError, SyntaxError):
        return None
    return digest("\n".join(line.rstrip() for line in lines if line.strip()).encode("utf-8", "surrogatepass"))
