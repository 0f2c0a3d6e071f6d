"""However code and data are reached from a function: what changes the function's result is noticed, and in its key."""

from __future__ import annotations

import builtins
import sys
import textwrap
import types
from collections.abc import Iterator

import pytest

from flow_core.memo.identity import identify
from flow_core.remote.own_modules import is_local
from flow_core.snapshot.finder import FunctionLooks

SETTINGS = "LIMIT = 0\ndef limit(): return LIMIT\nclass Limits:\n    upper = 0\n"


def cases(text: str) -> dict[str, tuple[str, str]]:
    """Return by what is reached a script whose ``f`` reaches it, and a change of it."""
    found = {}
    for case in text.strip().removeprefix("== ").split("\n== "):
        name, _, rest = case.partition("\n")
        source, _, change = rest.partition("\n-- ")
        found[name] = source, change
    return found


KINDS = cases("""
== an attribute of a module by a constant
def f(): return getattr(settings, 'LIMIT')
-- settings.LIMIT = 1
== an attribute of a module by a name that is not known
def f(x='LIM'): return getattr(settings, x + 'IT', None)
-- settings.LIMIT = 1
== the names of a module as a dict
def f(): return vars(settings)['LIMIT'], settings.__dict__['LIMIT']
-- settings.LIMIT = 1
== a module by a constant
def f(): return importlib.import_module('the_settings').LIMIT
-- settings.LIMIT = 1
== a module by a name that is not known, through a helper
def g(x):
    from importlib import import_module
    return import_module(f'the_{x}')
def f(): return g('settings').limit()
-- settings.LIMIT = 1
== a module among the imported ones
def f(): return sys.modules['the_settings'].LIMIT, sys.modules.get('the_' + 'settings').LIMIT
-- settings.LIMIT = 1
== a module by the function that imports
def f(): return __import__('the_settings').LIMIT
-- settings.LIMIT = 1
== a global by a constant
LIMIT = 0
def f(): return globals()['LIMIT']
-- LIMIT = 1
== a global by a constant, if there is one
def f(): return globals().get('LIMIT', 0)
-- LIMIT = 1
== a global in a text that is evaluated
LIMIT = 0
def g(): return LIMIT
def f(): return eval('[g() for _ in "x"]')
-- LIMIT = 1
== a name among the builtins
import builtins
builtins.LIMIT_OF_ALL = 0
def f(): return LIMIT_OF_ALL
-- builtins.LIMIT_OF_ALL = 1
== an attribute of a function
def g(): return g.factor
g.factor = 0
def f(): return g()
-- g.factor = 1
== a new attribute of a function
def g(): return 0
def f(): return getattr(g, 'factor', 0)
-- g.factor = 1
== an attribute of the function itself
def f(): return f.factor
f.factor = 0
-- f.factor = 1
== a list in an attribute of a function
def g(): return g.seen[:]
g.seen = []
def f(): return g()
-- g.seen.append(1)
== a module under another name
def f():
    s = settings
    return s.LIMIT
-- settings.LIMIT = 1
== a module as an argument
def g(s): return s.LIMIT
def f(): return g(settings)
-- settings.LIMIT = 1
== a module that is a default
def f(s=settings): return s.LIMIT
-- settings.LIMIT = 1
== a module of an enclosing function
def make(s):
    def f():
        t = s
        return t.LIMIT
    return f
f = make(settings)
-- settings.LIMIT = 1
== a module in a class
class C:
    s = settings
    def g(self): return self.s.LIMIT
def f(): return C().g()
-- settings.LIMIT = 1
== a module in a dict
D = {'a': settings}
def f(): return D['a'].LIMIT
-- settings.LIMIT = 1
== a module in an object
D = types.SimpleNamespace(s=settings)
def f(): return D.s.LIMIT
-- settings.LIMIT = 1
== a module imported and given on
def g(s): return s.LIMIT
def f():
    import the_settings
    return g(the_settings)
-- settings.LIMIT = 1
== a function of such a module
def f():
    s = settings
    return s.limit()
-- settings.LIMIT = 1
== a class of such a module
def f():
    s = settings
    return s.Limits.upper
-- settings.Limits.upper = 1
== what such a module has not yet
def f():
    s = settings
    try: return s.NEW
    except AttributeError: return 0
-- settings.NEW = 1
== a method of a list
L = [0]
get = L.copy
def f(): return get()
-- L.append(1)
== a view of a dict
D = {}
K = D.keys()
def f(): return list(K)
-- D[1] = 1
== a mapping proxy
D = {'a': 0}
P = types.MappingProxyType(D)
def f(): return P['a']
-- D['a'] = 1
== a memoryview
D = bytearray(3)
V = memoryview(D)
def f(): return bytes(V)
-- D[0] = 1
== a default factory
D = collections.defaultdict(int)
def f(): return D.copy()[0]
-- D.default_factory = lambda: 1
== a global of a default factory
LIMIT = 0
def g(): return LIMIT
D = collections.defaultdict(g)
def f(): return D.copy()[0]
-- LIMIT = 1
== a method of an Enum
LIMIT = 0
class M(enum.Enum):
    A = 1
    def g(self): return LIMIT
def f(): return M.A.g()
-- LIMIT = 1
== a method set in an Enum
class M(enum.Enum):
    A = 1
    def g(self): return 0
def f(): return M.A.g()
-- M.g = lambda self: 1
== an attribute of a member
class M(enum.Enum):
    A = 1
M.A.extra = 0
def f(): return M.A.extra
-- M.A.extra = 1
== a member of an Enum
class M(enum.Enum):
    A = 1
M.A.extra = 0
a = M.A
def f(): return a.extra
-- a.extra = 1
== a method of a metaclass
LIMIT = 0
class T(type):
    def g(cls): return LIMIT
class C(metaclass=T): pass
def f(): return C.g()
-- LIMIT = 1
== a method set in a metaclass
class T(type):
    def g(cls): return 0
class C(metaclass=T): pass
def f(): return C.g()
-- T.g = lambda cls: 1
== a method of a class with its own pickle
LIMIT = 0
class C:
    def __getstate__(self): return {}
    def g(self): return LIMIT
c = C()
def f(): return c.g()
-- LIMIT = 1
== a method set in a class with its own pickle
class C:
    def __reduce__(self): return C, ()
    def g(self): return 0
c = C()
def f(): return c.g()
-- C.g = lambda self: 1
== the state of a class with its own pickle
class C:
    def __reduce__(self): return C, (), {'a': self.a}
c = C()
c.a = 0
def f(): return c.a
-- c.a = 1
== a method below an installed class
LIMIT = 0
class T(string.Template):
    def g(self): return LIMIT
t = T('')
def f(): return t.g()
-- LIMIT = 1
== a method of an exception
LIMIT = 0
class E(ValueError):
    def g(self): return LIMIT
e = E()
def f(): return e.g()
-- LIMIT = 1
== a function in an installed object
LIMIT = 0
def g(): return LIMIT
t = string.Template('')
t.g = g
def f(): return t.g()
-- LIMIT = 1
== a lambda in an installed object
LIMIT = 0
t = string.Template('')
t.g = lambda: LIMIT
def f(): return t.g()
-- LIMIT = 1
== an attribute of a float
class Q(float): pass
q = Q(1)
q.unit = 0
def f(): return q.unit
-- q.unit = 1
== a method of a str
LIMIT = 0
class Q(str):
    def g(self): return LIMIT
q = Q('')
def f(): return q.g()
-- LIMIT = 1
== a method of an int
LIMIT = 0
class Q(int):
    def g(self): return LIMIT
q = Q(1)
def f(): return q.g()
-- LIMIT = 1
== a method of a path
LIMIT = 0
class Q(type(pathlib.Path())):
    def g(self): return LIMIT
q = Q('x')
def f(): return q.g()
-- LIMIT = 1
== a method of a date
LIMIT = 0
class Q(datetime.date):
    def g(self): return LIMIT
q = Q(1, 1, 1)
def f(): return q.g()
-- LIMIT = 1
== a descriptor
LIMIT = 0
class D:
    def __get__(self, o, t): return LIMIT
class C:
    x = D()
def f(): return C().x
-- LIMIT = 1
== an attribute of a descriptor
class D:
    at = 0
    def __get__(self, o, t): return self.at
class C:
    x = D()
def f(): return C().x
-- C.__dict__['x'].at = 1
== a cached property
LIMIT = 0
class C:
    @functools.cached_property
    def x(self): return LIMIT
def f(): return C().x
-- LIMIT = 1
== a partial method
LIMIT = 0
def g(self, k): return LIMIT
class C:
    x = functools.partialmethod(g, 2)
def f(): return C().x()
-- LIMIT = 1
== a function by type
LIMIT = 0
@functools.singledispatch
def g(x): pass
@g.register(int)
def _(x): return LIMIT
def f(): return g(1)
-- LIMIT = 1
== a function by type, registered later
@functools.singledispatch
def g(x): return 0
def f(): return g(1)
-- g.register(int, lambda x: 1)
== a method by type
LIMIT = 0
class C:
    @functools.singledispatchmethod
    def g(self, x): pass
    @g.register(int)
    def _(self, x): return LIMIT
def f(): return C().g(1)
-- LIMIT = 1
== a method of an abstract base
LIMIT = 0
class B(abc.ABC):
    def g(self): return LIMIT
class C(B): pass
c = C()
def f(): return c.g()
-- LIMIT = 1
== a method of an object in a tuple
LIMIT = 0
class C:
    def g(self): return LIMIT
T = (C(), 1)
def f(): return T[0].g()
-- LIMIT = 1
== a wrapper of the user's own
class W:
    def __init__(self, g): functools.update_wrapper(self, g)
    at = 0
    def __call__(self): return self.__wrapped__() + self.at
def g(): return 0
g = W(g)
def f(): return g()
-- g.at = 1
== code of a remembered function
LIMIT = 0
@functools.lru_cache
def g(): return LIMIT
def f():
    g.cache_clear()
    return g()
-- LIMIT = 1
""")
LARGE = cases("""
== an attribute of an object with a table
class C: pass
c = C()
c.w, c.a = BIG, 0
def f(): return c.a
-- c.a = 1
== a method of an object with a table
LIMIT = 0
class C:
    def g(self): return LIMIT
c = C()
c.w = BIG
def f(): return c.g()
-- LIMIT = 1
== an attribute of a class with a table
class C:
    W = BIG
    a = 0
def f(): return C.a
-- C.a = 1
== a method of a class with a table
class C:
    W = BIG
    @staticmethod
    def g(): return 0
def f(): return C.g()
-- C.g = staticmethod(lambda: 1)
== a dict beside a table
D = {'w': BIG, 'o': {'a': 0}}
def f(): return D['o']['a']
-- D['o']['a'] = 1
== a function beside a table
LIMIT = 0
def g(): return LIMIT
D = {'w': BIG, 'g': g}
def f(): return D['g']()
-- LIMIT = 1
== a function in a partial of a table
LIMIT = 0
def g(w): return LIMIT
p = functools.partial(g, BIG)
def f(): return p()
-- LIMIT = 1
== the object of a bound method
class C:
    a = 0
    def g(self): return self.a
c = C()
c.w = BIG
g = c.g
def f(): return g()
-- c.a = 1
== an attribute of an object with its own pickle
class C:
    def __reduce__(self): return C, (), self.__dict__
c = C()
c.w, c.a = BIG, 0
def f(): return c.a
-- c.a = 1
== an attribute of an installed object
c = string.Template('')
c.w, c.a = BIG, 0
def f(): return c.a
-- c.a = 1
== an attribute of an object with many small parts
class C: pass
c = C()
c.w, c.a = [[BIG[0]] * 100 for _ in range(1000)], 0
def f(): return c.a
-- c.a = 1
== an attribute of an object with a tree
class C: pass
c = C()
c.w = None
for _ in range(20_000): c.w = [c.w, 1]
c.a = 0
def f(): return c.a
-- c.a = 1
""")
TABLES = {"list": list(range(20_000)), "dict": dict.fromkeys(range(20_000), 0), "bytearray": bytearray(100_000)}


@pytest.fixture
def settings() -> Iterator[types.ModuleType]:
    module = types.ModuleType("the_settings")
    exec(SETTINGS, module.__dict__)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]
    vars(builtins).pop("LIMIT_OF_ALL", None)


def script(source: str, **names: object) -> types.ModuleType:
    """Return a module as a script would be."""
    module = types.ModuleType("__main__")
    module.__dict__.update(names)
    imports = "import abc, collections, datetime, enum, functools, importlib, pathlib, string, sys, types\n"
    exec(imports + textwrap.dedent(source), module.__dict__)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_noticed(kind: str, settings: types.ModuleType) -> None:
    source, change = KINDS[kind]
    module = script(source, settings=settings)
    before = module.f()
    looks = [FunctionLooks(module.f, whole=False), FunctionLooks(module.f, whole=True)]
    assert all(each.unchanged() for each in looks)
    exec(change, module.__dict__)
    assert not any(each.unchanged() for each in looks)
    assert module.f() != before


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_in_the_key(kind: str, settings: types.ModuleType) -> None:
    source, change = KINDS[kind]
    module = script(source, settings=settings)
    module.f()
    before = identify(module.f)
    assert identify(module.f) == before
    exec(change, module.__dict__)
    after = identify(module.f)
    assert (after.parts, after.defaults) != (before.parts, before.defaults)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", LARGE)
def test_of_what_holds_a_large_part_all_else_is_looked_at(kind: str, table: str) -> None:
    source, change = LARGE[kind]
    big = TABLES[table].copy()
    if table == "dict":
        source = source.replace("BIG[0]", "0")
    module = script(source, BIG=big)
    looks = FunctionLooks(module.f, whole=False)
    assert looks.unchanged()
    exec(change, module.__dict__)
    assert not looks.unchanged()


@pytest.mark.parametrize(
    ("source", "is_known"),
    [
        ("def f(x): return getattr(x, 'a', None), getattr(x('b'), 'c'), globals()['f']", True),
        ("def f(x): return x.eval('a'), x.modules, x.globals(), eval('x + 1')", True),
        ("def f(x): exec('x = f', globals(), {}); return eval('x + 1', globals())", True),
        ("def f(x): exec(x, globals(), {})", False),
        ("import sys\ndef f(x): return sys._getframe().f_globals['f']", False),
        ("def g(x): return x\ndef f(x): return g.__globals__['f']", False),
        ("import inspect\ndef g(x): return inspect.currentframe().f_back.f_globals[x]\ndef f(x): return g(x)", False),
        ("def f(x): return globals()[x]", False),
        ("def f(x): return globals()['a' + x]", False),
        ("def g(x): return eval(x)\ndef f(x): return g(x)", False),
        ("def f(x): exec(f'{x} = 1')", False),
        ("def f(x): return eval(x, {}), eval(x, {'x': x}), eval(x, {'x': x, 'y': 1})", True),
        ("def f(x, names): exec(x, names); return eval(x, {}, names)", True),
        ("def f(x): return eval(x, None, {})", False),
        ("def f(x): return eval(x, globals())", False),
        ("def f(x): return eval(x, {**globals()})", False),
        ("def f(x): return eval(x, globals() | {'x': x})", False),
        ("def f(x):\n    names = globals().copy()\n    return eval(x, names)", False),
        ("def f(x, by): return eval(by(x), {'x': by(x)})", False),
        ("def f(x): return eval(eval(x), {})", False),
        ("def f(x):\n    names = globals()\n    return [names[one] for one in x]", False),
    ],
)
def test_functions_that_take_globals_by_names_not_known_are_found(source: str, is_known: bool) -> None:
    function = script(source).f
    assert bool(identify(function).unknown) is not is_known
    assert bool(FunctionLooks(function, whole=False).unknown) is not is_known


@pytest.mark.parametrize(
    ("source", "takes_main"),
    [
        ("import sys\ndef f(): return sys.modules['__main__'].LIMIT", True),
        ("import sys\ndef f(): return sys.modules[__name__].LIMIT", True),
        ("import sys\ndef f(): return vars(sys.modules[__name__])", True),
        ("def f():\n    import __main__\n    return __main__.LIMIT", True),
        ("def f():\n    from __main__ import LIMIT\n    return LIMIT", True),
        ("import __main__ as own\ndef g(): return own.LIMIT\ndef f(): return g()", True),
        ("import importlib\ndef f(): return importlib.import_module('__main__')", True),
        ("import sys\ndef f(): return sys.modules['json'], __name__", False),
        ("def f(): return __name__ == '__main__'", False),
    ],
)
def test_functions_that_take_the_script_as_a_module_are_found(
    source: str, takes_main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ``sys.modules[...]`` may be any module of the user's own: here all tests of the process, whose data takes minutes.
    for name in [name for name in sys.modules if name != "__main__" and is_local(name)]:
        monkeypatch.delitem(sys.modules, name)
    function = script(source).f
    assert bool(identify(function).mains) is takes_main
    assert bool(FunctionLooks(function, whole=False).mains) is takes_main
