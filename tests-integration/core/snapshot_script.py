"""A script that changes what its functions name between calls; it prints what each executor gave, and Python itself."""

import concurrent.futures
import importlib
import json
import pathlib
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


def redefine_helper():
    global helper

    def helper(x):
        return -x


def reload_tools():
    (directory / "tools.py").write_text(TOOLS.replace("x * FACTOR", "x * FACTOR + 1000"))
    importlib.invalidate_caches()
    importlib.reload(tools)


def edit_tools_on_disk():
    (directory / "tools.py").write_text(TOOLS.replace("x * FACTOR", "x * FACTOR + 99000"))


CHANGES = {
    "nothing": lambda: None,
    "a global": lambda: globals().update(LIMIT=20),
    "an element": lambda: STATE["a"].append(3),
    "a class attribute": lambda: setattr(Counter, "step", 5),
    "a helper": redefine_helper,
    "a variable of a closure": lambda: put(7),
    "a module's value": lambda: setattr(settings, "LIMIT", 30),
    "a module's value back": lambda: setattr(settings, "LIMIT", 1),
    "a module's dict": lambda: settings.TABLE.update(a=5),
    "a module's class": lambda: setattr(settings.Bounds, "upper", 6),
    "another module's value": lambda: setattr(tools, "FACTOR", 2),
    "a module's function": lambda: setattr(tools, "scaled", lambda x: x * 100),
    "a module that is reloaded": reload_tools,
    "a file that is edited": edit_tools_on_disk,
}


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
        functions = (own, through, inside, closed, tools.whole, large)
        for change, make_it in CHANGES.items():
            make_it()
            for function in (own, through, inside, closed, tools.whole, large):
                expected = function(10)
                for label in ("htex", "llex", "pool"):
                    future = kernel.submit(function, 10, executors=label)
                    futures.append((change, function.__name__, label, expected, future))
        for change, name, label, expected, future in futures:
            error = future.exception()
            found.append([change, name, label, repr(expected), repr(error or future.result())])
    print(json.dumps([row for row in found if row[3] != row[4]]))
