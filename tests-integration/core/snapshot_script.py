"""A script that changes what its functions name between calls; it prints what each executor gave, and Python itself."""

import concurrent.futures
import importlib
import json
import pathlib
import random
import sys

import flow
from flow.providers import LocalProvider
from flow_core.executors.futures import FuturesExecutor

directory = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(directory))
SETTINGS = "LIMIT = 1\nTABLE = {'a': 1}\nBIG = list(range(50_000))\nclass Bounds:\n    upper = 1\n"
TOOLS = """
import settings
from settings import Bounds, TABLE
FACTOR = 1
def scaled(x): return x * FACTOR
def whole(x): return scaled(x), settings.LIMIT, TABLE['a'], Bounds.upper
"""
(directory / "settings.py").write_text(SETTINGS)
(directory / "tools.py").write_text(TOOLS)
import settings  # noqa: E402
import tools  # noqa: E402

LIMIT = 1
STATE = {"a": [1]}


class Counter:
    step = 1

    def next(self, x):
        return x + self.step


def helper(x):
    return x + LIMIT


def own(x):
    return helper(x), STATE["a"][-1], Counter().next(x)


def classy(x):
    return Counter().next(x)


def through(x):
    return tools.whole(x), settings.LIMIT


def inside(x):
    import settings
    from tools import scaled

    return settings.LIMIT, scaled(x)


def large(x):
    return settings.BIG[x]


def make(start):
    count = start

    def f(x):
        return x + count

    def put(value):
        nonlocal count
        count = value

    return f, put


closed, put = make(1)


def redefine_helper(value):
    global helper

    def helper(x):
        return value - x


def write_tools(value):
    (directory / "tools.py").write_text(TOOLS.replace("x * FACTOR", f"x * FACTOR + {value}"))
    importlib.invalidate_caches()


def reload_tools(value):
    write_tools(value)
    importlib.reload(tools)


CHANGES = {
    "nothing": lambda value: None,
    "a global": lambda value: globals().update(LIMIT=value),
    "an element": lambda value: STATE["a"].append(value),
    "a class attribute": lambda value: setattr(Counter, "step", value),
    "a class attribute back": lambda value: setattr(Counter, "step", 1),
    "a helper": redefine_helper,
    "a variable of a closure": lambda value: put(value),
    "a module's value": lambda value: setattr(settings, "LIMIT", value),
    "a module's value back": lambda value: setattr(settings, "LIMIT", 1),
    "a module's dict": lambda value: settings.TABLE.update(a=value),
    "a module's class": lambda value: setattr(settings.Bounds, "upper", value),
    "another module's value": lambda value: setattr(tools, "FACTOR", value),
    "a module's function": lambda value: setattr(tools, "scaled", lambda x: x * 100 + value),
    "a module that is reloaded": reload_tools,
    "a file that is edited": write_tools,
}


def program(seed):
    """Return changes: each once, then more at random."""
    rest = random.Random(seed)
    return [(change, 20 + number) for number, change in enumerate(CHANGES)] + [
        (rest.choice([*CHANGES]), rest.randrange(5)) for _ in range(12)
    ]


def executors():
    def provider():
        return LocalProvider(init_blocks=1, max_blocks=1, worker_init=f"export PYTHONPATH={directory}:$PYTHONPATH")

    return [
        flow.HighThroughputExecutor("htex", max_workers=1, provider=provider()),
        flow.LowLatencyExecutor("llex", max_workers=1, provider=provider()),
        FuturesExecutor("pool", lambda: concurrent.futures.ProcessPoolExecutor(1)),
    ]


if __name__ == "__main__":
    found = []
    with flow.load(flow.Config(executors=executors(), run_dir=str(directory / "runs"))) as kernel:
        futures = []
        for change, value in program(sys.argv[2]):
            CHANGES[change](value)
            for function in (own, classy, through, inside, closed, tools.whole, large):
                expected = function(10)
                for label in ("htex", "llex", "pool"):
                    future = kernel.submit(function, 10, executors=label)
                    futures.append((change, function.__name__, label, expected, future))
        for change, name, label, expected, future in futures:
            error = future.exception()
            found.append([change, name, label, repr(expected), repr(error or future.result())])
    print(json.dumps([row for row in found if row[3] != row[4]]))
