"""The script's own modules on nodes that do not see its files."""

from __future__ import annotations

import pytest
from machines import Machines

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

HELPER = '''\
"""A module beside the script."""
from flow_core import python_app

STEP = 1


class Point:
    def __init__(self, x):
        self.x = x

    def doubled(self):
        return Point(2 * self.x)


def inc(x):
    return x + STEP


def fail(x):
    raise ValueError(f"bad {x}")  # as it stands in the file


@python_app
def an_app(x):
    return inc(x)
'''
DEEP = """\
import importlib.resources


def text():
    return (importlib.resources.files("tools") / "data" / "text.txt").read_text()
"""
SETUP = """
import importlib
import traceback


def bare(*hosts, **others):
    return config(*hosts, launch_cmd=None, **{"provider": {"worker_init": ""}, **others})


"""
WAYS = """
import helper
import tools


@python_app
def closure(x):
    return helper.inc(x)


@python_app
def inside(x):
    from helper import inc

    return inc(x)


@python_app
def of_instance(point):
    return point.doubled().x


@python_app
def to_instance(x):
    from helper import Point

    return Point(x)


@python_app
def data():
    return tools.deep.text()


@python_app
def beside():
    import late

    return late.VALUE


@python_app
def failing(x):
    import helper

    return helper.fail(x)


"""


def write_modules(machines: Machines) -> None:
    machines.write("helper.py", HELPER)
    machines.write("late.py", "VALUE = 7\n")
    machines.write("tools/__init__.py", "from . import deep\n")
    machines.write("tools/deep.py", DEEP)
    machines.write("tools/data/text.txt", "hello")


@pytest.mark.parametrize("kind", ["htex", "llex"])
def test_modules_of_the_script_reach_nodes_in_all_ways_that_code_takes_them(machines: Machines, kind: str) -> None:
    machines.start(1)
    write_modules(machines)
    said = machines.run(
        f"""{SETUP}{WAYS}
with flow.load(bare("node1", kind={kind!r})):
    tell(closure=closure(1).result(timeout=50))
    tell(app=helper.an_app(1).result(timeout=50))
    tell(inside=inside(1).result(timeout=50))
    tell(argument=of_instance(helper.Point(4)).result(timeout=50))
    made = to_instance(5).result(timeout=50)
    tell(result=[type(made) is helper.Point, made.x])
    tell(data=data().result(timeout=50))
    tell(beside=beside().result(timeout=50))
    tell(error="".join(traceback.format_exception(failing(3).exception(timeout=50))))
"""
    )
    *ways, error = said
    assert ways == [
        {"closure": 2},
        {"app": 2},
        {"inside": 2},
        {"argument": 8},
        {"result": [True, 5]},
        {"data": "hello"},
        {"beside": 7},
    ]
    assert "# as it stands in the file" in str(error["error"])


def test_a_module_goes_to_a_node_once_and_again_when_it_was_edited(machines: Machines) -> None:
    machines.start(1)
    write_modules(machines)
    text = f"""{SETUP}{WAYS}
with flow.load(bare("node1")):
    tell(first=[one.result(timeout=50) for one in [inside(1) for _ in range(20)]])
    with open("helper.py", "a") as file:
        file.write("\\n\\nSTEP = 100\\n")
    importlib.reload(helper)
    tell(edited=[inside(1).result(timeout=50), closure(1).result(timeout=50), helper.an_app(1).result(timeout=50)])
"""
    assert machines.run(text) == [{"first": [2] * 20}, {"edited": [101] * 3}]
    copies = [line for line in machines.written(1) if line.endswith("/helper.py")]
    assert len(copies) in (1, 2), copies
    # another run, with the edited file, which is there by then or comes once
    said = machines.run(text.replace('        file.write("\\n\\nSTEP = 100\\n")', '        file.write("\\n")'))
    assert said[0] == {"first": [101] * 20}


def test_a_module_that_is_registered_goes_by_value(machines: Machines) -> None:
    machines.start(1)
    write_modules(machines)
    said = machines.run(
        f"""{SETUP}{WAYS}
import cloudpickle

cloudpickle.register_pickle_by_value(helper)
with flow.load(bare("node1", code=None)):
    tell(closure=closure(1).result(timeout=50))
    tell(app=helper.an_app(1).result(timeout=50))
    tell(argument=of_instance(helper.Point(4)).result(timeout=50))
"""
    )
    assert said == [{"closure": 2}, {"app": 2}, {"argument": 8}]
    assert not [line for line in machines.written(1) if line.endswith("/helper.py")]


def test_without_the_modules_the_error_names_the_node(machines: Machines) -> None:
    machines.start(1)
    write_modules(machines)
    said = machines.run(
        f"""{SETUP}{WAYS}
with flow.load(bare("node1", code=None)):
    tell(error="".join(traceback.format_exception(inside(1).exception(timeout=50))))
"""
    )
    assert "helper" in str(said[0]["error"])
    assert "node1" in str(said[0]["error"])


def test_only_what_is_named_goes(machines: Machines) -> None:
    machines.start(1)
    write_modules(machines)
    said = machines.run(
        f"""{SETUP}{WAYS}
with flow.load(bare("node1", code=["late", "./tools"])):
    tell(data=data().result(timeout=50), beside=beside().result(timeout=50))
    tell(error=type(failing(1).exception(timeout=50)).__name__)
"""
    )
    assert said[0] == {"data": "hello", "beside": 7}
    assert said[1]["error"] in ("ModuleNotFoundError", "ImportError")
