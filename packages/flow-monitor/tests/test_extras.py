"""What is optional is not needed: everything else works where it is not installed."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "opentelemetry", "psycopg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""

EVERY_MODULE = """
import flow_monitor
optional = {"flow_monitor.export.otel"}
for found in pkgutil.walk_packages(flow_monitor.__path__, "flow_monitor."):
    if found.name not in optional and ".migrations" not in found.name and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print(len([name for name in sys.modules if name.startswith("flow_monitor")]))
"""

ASKED_FOR = """
from flow_monitor.errors import MonitorError
from flow_monitor.queries.frames import frame
from flow_monitor.queries.database import open_database
for ask in (lambda: frame([]), lambda: open_database("postgresql://user@127.0.0.1/none")):
    try:
        ask()
    except MonitorError as error:
        print(error)
"""


def in_an_interpreter_without_extras(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT + script], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_other_module_is_imported_without_extras() -> None:
    assert int(in_an_interpreter_without_extras(EVERY_MODULE)) > 30


def test_what_needs_an_extra_says_which() -> None:
    said = in_an_interpreter_without_extras(ASKED_FOR)
    assert "install flow-monitor[pandas]" in said
    assert "install flow-monitor[postgresql]" in said
