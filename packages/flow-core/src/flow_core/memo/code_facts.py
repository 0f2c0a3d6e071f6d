"""Facts about code: its digest, the globals that it names, and what it names of the user's own modules.

Names taken only as code runs (``getattr(settings, "N")``, ``globals()["N"]``, ``import_module("tools")``) count like
any others where they stand in the code as constants; where a name is no constant, all of the user's modules that it may
mean count. So do modules that code holds as values (``s = settings; s.LIMIT``).
"""

from __future__ import annotations

import builtins
import dis
import inspect
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import resolve_name
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import NamedTuple, TypeGuard

from flow_core.files import File
from flow_core.memo.digest import Walker, digest, frame
from flow_core.remote.own_modules import OF_FLOW, is_local
from flow_core.remote.source_names import OF_GLOBALS, named_in_source


class OwnNames:
    """The names of the user's own modules that are imported; of packages the first part. Any thread."""

    def __init__(self) -> None:
        self._seen: tuple[int, str] = 0, ""
        self._tops: set[str] = set()
        self._names: tuple[tuple[bytes, re.Pattern[bytes]], ...] = ()

    def mentioned(self, data: bytes) -> bool:
        """Tell whether a pickle (protocol 4 or 5) refers to a module of the user's own."""
        modules = sys.modules
        # Number and last name of the modules change with each import; comparing them costs next to nothing in each
        # call.
        if self._seen != (len(modules), next(reversed(modules))):
            self._look()
        # Names are looked for by themselves first: that takes next to no time, however long the pickle.
        for name, pattern in self._names:  # noqa: SIM110  (any() makes an object on the way of each call)
            if name in data and pattern.search(data) is not None:
                return True
        return False

    def _look(self) -> None:
        modules = list(sys.modules)
        tops = {name.partition(".")[0] for name in modules}
        for top in tops - self._tops:
            # Names of __main__ are found by other means (``needs_care``): no other process can import them.
            if top not in ("__main__", "__mp_main__") and _is_own(top):
                name = top.encode("utf-8", "surrogatepass")
                # 0x8c is SHORT_BINUNICODE and is followed by a length byte, then the name; "." or MEMOIZE (0x94) ends
                # its first part.
                self._names += ((name, re.compile(b"\\x8c." + re.escape(name) + b"[.\\x94]", re.DOTALL)),)
        self._tops |= tops
        self._seen = len(modules), modules[-1]


def _is_own(top: str) -> bool:
    """Tell whether a module, or part of the package, may be the user's own."""
    # A namespace package may be spread over several directories, of which one may be the user's.
    return is_local(top) or len(list(getattr(sys.modules.get(top), "__path__", ()))) > 1


own_names = OwnNames()
"""The names of the user's own modules in this process."""


OF_IMPORT = frozenset(
    {
        *("__name__", "__file__", "__path__", "__package__", "__spec__", "__loader__", "__cached__"),
        *("__builtins__", "__dict__", "__doc__", "__annotations__", "__class__"),
    }
)
"""Attributes of modules that the import sets, by where it has found the module."""


class HeldModules:
    """Modules that code reaches otherwise than by a name and its attribute: variables, defaults, elements, attributes.

    Which attribute is taken of which module then shows only at run time. So each attribute counts that any of the code
    takes of anything.

    Attributes:
        attributes: All attributes that code met so far takes.
    """

    def __init__(self, attributes: Iterable[str] = ()) -> None:
        self.attributes: set[str] = set(attributes)
        self._modules: dict[int, tuple[ModuleType, bool]] = {}
        self._reported: set[tuple[int, str]] = set()

    def code(self, function: FunctionType, facts: CodeFacts) -> None:
        """Note a function that is reached: the attributes that its code takes, and the modules that it holds."""
        self.attributes.update(facts.attributes)
        for module, imported in held(function, facts):
            self.module(module, imported)

    def module(self, module: ModuleType, imported: bool = False) -> None:
        """Take a module that is reached; ``imported`` if code imports it itself."""
        if is_local(module.__name__):
            _, before = self._modules.get(id(module), (module, False))
            self._modules[id(module)] = module, imported or before

    def left(self) -> list[ModuleMember]:
        """Return what counts and was not returned before. What that names may add more."""
        found: list[ModuleMember] = []
        for module, imported in sorted(self._modules.values(), key=lambda each: each[0].__name__):
            # Sorted, so that the key does not depend on the hash seed.
            taken = self.attributes
            for attribute in sorted(taken | {*module.__dict__} if ANY in taken else taken):
                if (id(module), attribute) not in self._reported and attribute not in OF_IMPORT:
                    self._reported.add((id(module), attribute))
                    value = module.__dict__.get(attribute, ABSENT)
                    found.append(ModuleMember(module, attribute, value, f"{module.__name__}.{attribute}", imported))
        return found


ANY = "*"
"""Stands among attributes for all: code takes some by names that are not known."""
# Names that code may take a name by, grouped by the name's kind: of a module, of an attribute, of a global.
_OF_MODULES = frozenset({"__import__", "import_module", "modules"})
_OF_OBJECTS = frozenset({"getattr", "hasattr"})
_MAKERS = frozenset({"attrgetter", "methodcaller"})
_BUILTIN = OF_GLOBALS | _OF_OBJECTS | {"__import__", "vars"}
_IMPORTED = _MAKERS | {"import_module"}
_SUBSCRIBED = frozenset({"globals", "modules"})
# Attributes that are the globals of some module: of a frame, of a function.
_NAMESPACES = frozenset({"f_globals", "f_builtins", "__globals__"})
# The same call has other instructions in each version of Python; these sets hold those of all versions.
_CALLS = frozenset({"PRECALL", "CALL", "CALL_FUNCTION", "CALL_METHOD"})
# Instructions that neither load a possible argument nor end the call that is being followed.
_SILENT = frozenset({"PUSH_NULL", "CACHE", "LOAD_METHOD", "LOAD_ATTR", "EXTENDED_ARG", "NOP"})
_IN_NAMES = frozenset({"eval", "exec"})
# How many loaded values an instruction makes one dict of, by its argument: namespaces of eval() and exec().
_DICTS: dict[str, Callable[[int], int]] = {
    "BUILD_MAP": lambda count: 2 * count,
    "BUILD_CONST_KEY_MAP": lambda count: count + 1,
}
_LOADS_MAX = 6  # loads; getattr() and eval() take three, so more before a call mean that this is not their call
# Stands for a loaded value that is no constant, so that arguments can still be counted.
_NAMELESS = object()
# Stands for ``globals()`` as an argument of eval() and exec(): what these take without it.
_OWN_GLOBALS = object()


def variables(operation: str, names: Sequence[object]) -> Iterator[tuple[str, str]]:
    """Yield LOAD or STORE and the variable of each step of an instruction; newer Pythons have several in one."""
    kinds = [word for word in operation.split("_") if word in ("LOAD", "STORE")]
    for kind, name in zip(kinds * 2, names, strict=False):
        yield kind, str(name)


class RuntimeNames:
    """Names that code takes only as it runs, found by following its instructions one after the other.

    Attributes:
        names: Constants that are taken as names of globals.
        modules: Constants that are taken as names of modules; relative ones have their dots.
        attributes: Constants that are taken as names of attributes; ``ANY`` where some are not known.
        any_module: Whether modules are taken by names that are not known.
        any_global: Whether globals are.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.modules: set[str] = set()
        self.attributes: set[str] = set()
        self.any_module = False
        self.any_global = False
        self._by: str | None = None  # what takes a name, until it has it
        self._loads: list[object] = []  # what was loaded since then: constants, and what is none
        self._last: object = None
        self._aliases: dict[str, str] = {}

    def take(self, operation: str, given: object) -> None:
        """Follow the next instruction: its operation and its decoded argument."""
        if isinstance(given, tuple) and "_FAST_" in operation:
            for kind, name in variables(operation, given):
                self.take(f"{kind}_FAST", name)
            return
        by = self._begun(operation, given)
        if by == "globals" and self._by in _IN_NAMES and self._loads:
            self._loads.append(_OWN_GLOBALS)
        elif by is not None:
            self.finish()
            self._by, self._loads = by, []
        elif self._by is not None:
            self._go_on(self._by, operation, given)
        # Through __dict__ any attribute may be taken.
        if operation in ("LOAD_ATTR", "LOAD_METHOD") and given == "__dict__":
            self.attributes.add(ANY)
        # Of which function or frame they are shows only at run time, so even a constant name is not known to be ours.
        elif operation in ("LOAD_ATTR", "LOAD_METHOD") and given in _NAMESPACES:
            self.any_global = True
        # Its text names a module, and what is taken of that.
        elif given == "resolve_name" and operation in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
            self.any_module = True
            self.attributes.add(ANY)
        self._last = given

    def finish(self) -> None:
        """Take it that a name is not known: it is no constant, or has not come."""
        # An unknown name must count as all that it may mean: else a result would be found that depends on other values.
        by, self._by = self._by, None
        if by in _OF_MODULES:
            self.any_module = True
        elif by in OF_GLOBALS:
            self.any_global = True
        elif by is not None:
            self.attributes.add(ANY)

    def take_inner(self, inner: RuntimeNames) -> None:
        """Add what was found in nested code: it runs among the same globals."""
        self.names |= inner.names
        self.modules |= inner.modules
        self.attributes |= inner.attributes
        self.any_module |= inner.any_module
        self.any_global |= inner.any_global

    def _begun(self, operation: str, given: object) -> str | None:
        """Return what takes a name, if this instruction loads such."""
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            return str(given) if given in _BUILTIN or given in _IMPORTED else None
        if operation in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
            is_modules = given == "modules" and (self._last == "sys" or operation == "IMPORT_FROM")
            return str(given) if is_modules or given in _IMPORTED else None
        # ``get = getattr; get(settings, name)``: the variable stands for the function from here on.
        if operation.startswith("LOAD_FAST") and isinstance(given, str):
            return self._aliases.get(given)
        return None

    def _go_on(self, by: str, operation: str, given: object) -> None:
        if operation == "STORE_FAST" and not self._loads:  # it is called later, by that name
            self._by, self._aliases[str(given)] = None, by
        elif operation.startswith("LOAD_") and operation not in _SILENT:
            is_name = operation.startswith("LOAD_CONST") and (given is None or isinstance(given, str))
            self._loads.append(given if is_name else _NAMELESS)
            if len(self._loads) > _LOADS_MAX:
                self.finish()
        elif operation in _CALLS:
            if given == 0 and self._loads and self._loads[-1] is _OWN_GLOBALS:  # of globals() itself
                return
            if by != "globals" or self._loads or given != 0:  # not globals() itself
                self._decide(by, given)
        elif operation.startswith("BINARY_SUBSCR") and by in _SUBSCRIBED:
            self._decide(by, 1)
        elif operation in _DICTS and by in _IN_NAMES and isinstance(given, int):
            taken = _DICTS[operation](given)  # a dict with these is one argument
            if len(self._loads) > taken:
                self._loads[len(self._loads) - taken :] = [_NAMELESS]
            else:
                self.finish()
        elif operation not in _SILENT:
            self.finish()

    def _decide(self, by: str, arguments: object) -> None:
        """Take the name, if what is called now has all that was loaded as its arguments: it is no call within them."""
        if (
            by in _IN_NAMES
            and arguments == len(self._loads) >= 2
            and self._loads[1] is not None
            and self._loads[1] is not _OWN_GLOBALS
        ):
            self._by = None  # the names that it is given count as what they are: an argument, a variable, a global
            return
        # getattr(object, name) has the name second, all others have it first.
        at = 1 if by in _OF_OBJECTS else 0
        name = self._loads[at] if len(self._loads) > at else None
        if by == "vars" or arguments != len(self._loads) or not isinstance(name, str):
            self.finish()
            return
        self._by = None
        if by in _OF_MODULES:
            self.modules.add(name)
        elif by in _OF_OBJECTS or by in _MAKERS:
            # attrgetter("a.b") takes a and then b.
            self.attributes.update(name.split("."))
        elif by == "globals":
            self.names.add(name)
        else:
            # What remains is source text for eval() and exec(): each word of it may be a global or an attribute.
            self.names |= named_in_source(name)
            self.attributes |= named_in_source(name)


# Seconds since 1970. A source file that is newer may not be the source of the code that was loaded.
_LOADED_AT = time.time()
# Bytecode differs among minor versions, so a digest of it must never be equal across them.
_PYTHON = frame(b"V", f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}".encode())
_HAS_DOCSTRING = 0x4000000  # inspect.CO_HAS_DOCSTRING, which Python has from 3.14 on
_FACTS_MAX = 8192  # code objects; only a script that makes functions without end has more, and it must not fill memory
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")

Chain = tuple[str, ...]
"""A name and attributes of it, of these of these, as ``("package", "settings", "LIMIT")``."""


class CodeFacts:
    """Facts of one code object and the code nested in it, independent of what its names mean.

    Attributes:
        code: The code.
        digest: Its digest.
        names: The globals it names.
        chains: Names (globals, or variables of enclosing functions) with the attributes that it takes of them.
        imports: The same, beginning with modules that it imports itself; relative ones have their dots.
        values: Names, and chains, that it uses otherwise than to take an attribute at once.
        imported_values: The same, beginning with modules that it imports itself.
        attributes: All attributes that it takes, of whatever; ``ANY`` where some are taken by unknown names.
        modules: Modules that it takes by constants, as ``import_module`` does; relative ones have their dots.
        any_module: Whether it takes modules by names that are not known.
        any_global: Whether it takes globals by names that are not known.
    """

    __slots__ = (
        *(
            "_source",
            "any_global",
            "any_module",
            "attributes",
            "chains",
            "code",
            "digest",
            "imported_values",
            "imports",
        ),
        *("modules", "names", "runtime", "values"),
    )

    def __init__(self, code: CodeType, digest: bytes, scan: _Scan) -> None:
        self.code = code
        self.digest = digest
        runtime = scan.runtime
        self.names: Chain = tuple(sorted(scan.names | runtime.names))
        self.modules: Chain = tuple(sorted(runtime.modules))
        self.any_module, self.any_global = runtime.any_module, runtime.any_global
        self.chains = tuple(sorted(scan.chains))
        self.imports = tuple(sorted(scan.imports))
        self.values = tuple(sorted(scan.values))
        self.imported_values = tuple(sorted(scan.imported_values))
        self.attributes = frozenset(scan.attributes | runtime.attributes)
        self.runtime = runtime
        self._source: tuple[bytes | None] | None = None

    @property
    def source(self) -> bytes | None:
        """Digest of its source; None where that is not at hand. Looked up when first asked for."""
        if self._source is None:
            self._source = (_source_digest(self.code),)
        return self._source[0]


# Builtins that are no functions and that Python itself sets; "_" changes with each line of an interactive session.
_CONSTANTS = frozenset({"__debug__", "__doc__", "__loader__", "__name__", "__package__", "__spec__", "Ellipsis", "_"})
ABSENT = object()
"""The value of a Member that its module has not."""


class ModuleMember(NamedTuple):
    """A member of a module of the user's own that a function names: module, attribute, value, and all as one path.

    ``imported`` where the function imports the module itself.
    """

    module: ModuleType
    attribute: str
    value: object
    path: str
    imported: bool


def members(function: FunctionType, facts: CodeFacts) -> Iterator[ModuleMember]:
    """Yield what a function names of modules that are the user's own, through modules in modules too."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    for chain in facts.chains:
        yield from _along(_base(function, cells, chain[0]), chain, False)
    for chain in facts.imports:
        yield from _along(_imported(function, chain[0]), chain, True)


def takes_main(function: FunctionType, facts: CodeFacts) -> bool:
    """Tell whether a function takes ``__main__`` as a module, which in another process is another one."""
    if "__main__" in facts.modules or any(chain[0] == "__main__" for chain in (*facts.imports, *facts.imported_values)):
        return True
    # ``sys.modules[__name__]``: the name is no constant, and means the script's own module.
    if facts.any_module and "__name__" in facts.names and function.__globals__.get("__name__") == "__main__":
        return True
    main = sys.modules.get("__main__")
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    return any(_base(function, cells, chain[0]) is main for chain in (*facts.chains, *facts.values))


def from_builtins(name: str) -> object:
    """Return what the script, or a module of its, has put among the builtins; ABSENT for those of Python."""
    value = vars(builtins).get(name, ABSENT)
    if value is ABSENT or isinstance(value, BuiltinFunctionType) or name in _CONSTANTS:
        return ABSENT
    module = value.__module__ if isinstance(value, type) else type(value).__module__
    return ABSENT if module == "_sitebuiltins" or (isinstance(value, type) and module == "builtins") else value


def held(function: FunctionType, facts: CodeFacts) -> Iterator[tuple[ModuleType, bool]]:
    """Yield modules of the user's own that a function uses as values (``s = settings``); whether it imports them."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    for chain in facts.values:
        yield from _held(_base(function, cells, chain[0]), chain, False)
    for chain in facts.imported_values:
        yield from _held(_imported(function, chain[0]), chain, True)
    for name in facts.modules:
        yield from _held(_imported(function, name), (name,), True)
    if facts.any_module:
        for name, module in list(sys.modules.items()):
            if name != "__main__" and _is_module(module) and is_local(module.__name__):
                yield module, True


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
            # The variable is not set yet, so nothing of the user's own is behind it.
            content = None
        return content
    return function.__globals__.get(name)


def _imported(function: FunctionType, name: str) -> object:
    package = function.__globals__.get("__package__")
    try:
        # Only modules that are imported already: importing one here would run the user's code as a key is made.
        return sys.modules.get(resolve_name(name, package if isinstance(package, str) else None))
    except ImportError:
        return None


def _along(value: object, chain: Chain, imported: bool) -> Iterator[ModuleMember]:
    for depth in range(1, len(chain)):
        attribute = chain[depth]
        if not _is_module(value) or not is_local(value.__name__):
            return
        module, value = value, value.__dict__.get(attribute, ABSENT)
        yield ModuleMember(module, attribute, value, ".".join(chain[: depth + 1]), imported)


def is_of_process(value: object) -> bool:
    """Tell whether each process has its own of this, such as loggers, and runs and futures of Flow."""
    top = type(value).__module__.partition(".")[0]
    return top == "logging" or (top in OF_FLOW and not isinstance(value, File))


_known: dict[int, CodeFacts] = {}


def facts_of(code: CodeType) -> CodeFacts:
    """Return the facts of a code object; kept, since a script calls few functions many times."""
    facts = _known.get(id(code))
    if facts is None:
        # Two threads may look at the same code at once; both find the same, so no lock is needed.
        facts = _look_at(code)
        # Facts hold their code object, so an id in this dict cannot be used again by another one.
        if len(_known) >= _FACTS_MAX:
            _known.clear()
        _known[id(code)] = facts
    return facts


def _look_at(code: CodeType) -> CodeFacts:
    scan = _Scan()
    first_constant_used = False
    for instruction in dis.get_instructions(code):
        scan.take(instruction.opname, instruction.argval)
        scan.runtime.take(instruction.opname, instruction.argval)
        # The first constant may be the docstring, which must not count; if the code uses it, it must.
        if instruction.opcode in dis.hasconst and instruction.arg == 0:
            first_constant_used = True
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            scan.take_inner(facts_of(constant))
    scan.finish()
    return CodeFacts(code, _code_digest(code, skip_docstring=not first_constant_used and _has_docstring(code)), scan)


class _Scan:
    """Names, attribute chains and imports of one code object, found by following its instructions in order."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.chains: set[Chain] = set()
        self.imports: set[Chain] = set()
        self.values: set[Chain] = set()
        self.imported_values: set[Chain] = set()
        self.attributes: set[str] = set()
        self.runtime = RuntimeNames()
        self._bound: dict[str, Chain] = {}  # variables that hold what was imported
        self._constants: list[object] = []
        self._nested = False
        self._module: Chain | None = None  # what the last IMPORT_NAME left on the stack
        self._import: Chain | None = None  # what is on the stack, from an import
        self._last: tuple[Chain, bool] | None = None  # what is on the stack, and whether it begins with a module

    def take(self, operation: str, given: object) -> None:
        """Follow the next instruction: its operation and its decoded argument."""
        if operation == "EXTENDED_ARG":  # the instruction itself comes next
            return
        # Any instruction but the taking of an attribute uses what is on the stack as a value.
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
            # IMPORT_NAME finds its level and its list of names in the last two constants.
            self._constants = [*self._constants[-1:], given]

    def finish(self) -> None:
        """End the code: what is still on the stack was used as a value."""
        self._as_value(self._last)
        self.runtime.finish()

    def take_inner(self, inner: CodeFacts) -> None:
        """Take what nested code names; variables of the outer code may hold imported modules."""
        self.names.update(inner.names)
        self.imports.update(inner.imports)
        self.imported_values.update(inner.imported_values)
        self.attributes.update(inner.attributes)
        self.runtime.take_inner(inner.runtime)
        # A nested function may use a module that the outer one imported into a variable.
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
        """Take a load or a store of variables."""
        for kind, name in variables(operation, names):
            if kind == "STORE":
                self._store(name)
            else:
                self._load(name)

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
    # Before 3.14 nothing in a code object says that its first constant is a docstring; a string there may be one.
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
    # Lines, columns and the file are left out: a function that was moved in its file does the same.
    parts = (code.co_code, getattr(code, "co_exceptiontable", b""), shape, names, tuple(constants))
    return digest(_PYTHON + walker.encode(parts))


def source_lines(code: CodeType) -> list[str] | None:
    """Return a function's source without empty lines; None where it is not at hand, or was edited since."""
    try:
        # The file was edited after it was loaded: its lines are not those of this code.
        if os.path.exists(code.co_filename) and os.stat(code.co_filename).st_mtime > _LOADED_AT:
            return None
        lines = textwrap.dedent(inspect.getsource(code)).splitlines()
    except (OSError, TypeError, IndexError, SyntaxError):
        return None
    return [line.rstrip() for line in lines if line.strip()]


def _source_digest(code: CodeType) -> bytes | None:
    lines = source_lines(code)
    return None if lines is None else digest("\n".join(lines).encode("utf-8", "surrogatepass"))
