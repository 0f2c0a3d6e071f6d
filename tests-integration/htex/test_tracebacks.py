"""The same failures on every executor show the script's path, lines and source: in futures, events and logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_SCRIPT = """
import concurrent.futures, faulthandler, json, linecache, sys, traceback
import flow
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.providers import LocalProvider
from flow_core.executors.futures import FuturesExecutor
from flow_core.interfaces.events import EventKind, TaskEnded

CELL = "def in_cell(x):\\n    return {}['cell' * x]\\n"
linecache.cache["<ipython-input-7-abc>"] = (len(CELL), None, CELL.splitlines(True), "<ipython-input-7-abc>")
exec(compile(CELL, "<ipython-input-7-abc>", "exec"), globals())

def helper(x):
    return {}["helper" * x]

def caused(x):
    try:
        return helper(x)
    except KeyError as error:
        raise ValueError("caused") from error

def shell(x):
    return "echo last words >&2; exit 3"

def unformatted(x):
    return "{missing}".format(x=x)

def crash(x):
    faulthandler._sigsegv()

class Sink:
    wants = EventKind.TASK

    def start(self, run):
        self.told = {}

    def emit(self, events):
        self.told |= {event.task_id: event.traceback for event in events if isinstance(event, TaskEnded)}

    def close(self, timeout_s):
        return 0

def blocks(label):
    return {"label": label, "max_workers": 1, "provider": LocalProvider(init_blocks=1, max_blocks=1)}

def text(error):
    return "".join(traceback.format_exception(error))

if __name__ == "__main__":
    functions = (helper, caused, in_cell, lambda x: x / 0)
    executors = [
        flow.ThreadPoolExecutor("threads"),
        FuturesExecutor("pool", concurrent.futures.ProcessPoolExecutor(1)),
        HighThroughputExecutor(**blocks("htex")),
        LowLatencyExecutor(**blocks("llex")),
    ]
    sink = Sink()
    with flow.load(flow.Config(executors=executors, monitoring=sink, max_worker_kills=1)):
        futures = []
        for executor in executors:
            apps = [flow.python_app(func, executors=[executor.label]) for func in functions]
            apps += [flow.bash_app(func, executors=[executor.label]) for func in (shell, unformatted)]
            futures.append([app(1) for app in apps])
        told = [[text(future.exception()) for future in group] for group in futures]
        crashed = str(flow.python_app(crash, executors=["htex"])(1).exception())
    events = [[sink.told[future.tid] for future in group] for group in futures]
    json.dump([crashed, told, events], open("told.json", "w"))
"""


def test_failures_show_the_script_and_no_frame_of_flow(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    line = {text.strip(): number for number, text in enumerate(_SCRIPT.splitlines(), 1)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    crashed, told, events = json.loads((tmp_path / "told.json").read_text())

    def at(source: str, name: str) -> str:
        return f'  File "{script}", line {line[source]}, in {name}\n    {source}\n'

    for helper, caused, cell, unnamed, shell, unformatted in told + events:
        assert at('return {}["helper" * x]', "helper") + "           ~~^^" in helper
        assert at("return helper(x)", "caused") in caused
        assert at('raise ValueError("caused") from error', "caused") in caused
        assert "  File \"<ipython-input-7-abc>\", line 2, in in_cell\n    return {}['cell' * x]" in cell
        assert at("functions = (helper, caused, in_cell, lambda x: x / 0)", "<lambda>") in unnamed
        assert "exit code 3\ncommand: echo last words >&2; exit 3\n" in shell
        assert at('return "{missing}".format(x=x)', "unformatted") in unformatted
        assert "Traceback" not in shell
        assert not any("flow_" in text for text in (helper, caused, cell, unnamed))
    assert f'File "{script}", line {line["faulthandler._sigsegv()"]} in crash' in crashed
