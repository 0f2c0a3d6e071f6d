"""Scripts that change what their functions name: executors in other processes give what Python gives at each call."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SEED = "1"
SCRIPT = Path(__file__).with_name("snapshot_script.py")


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_process_executor_gives_what_python_gives_at_the_call(tmp_path: Path) -> None:
    """Globals, helpers, closures, classes, modules set, patched, reloaded and edited; all is submitted at once."""
    assert json.loads(run(tmp_path, str(SCRIPT), str(tmp_path), SEED)) == []


CACHED = """
import sys
import flow
from flow.providers import LocalProvider
from flow.utils import get_all_checkpoints
import limits

LIMIT = int(sys.argv[1])

@flow.python_app(cache=True)
def above(x):
    return x > LIMIT, x > limits.LIMIT

executors = {"llex": lambda: flow.LowLatencyExecutor(max_workers=1, provider=LocalProvider(max_blocks=1)),
             "threads": flow.ThreadPoolExecutor}
options = {"checkpoint_mode": "task_exit", "checkpoint_files": get_all_checkpoints()}
with flow.load(flow.Config(executors=[executors[sys.argv[2]]()], **options)) as kernel:
    for LIMIT in (int(sys.argv[1]), 100):
        limits.LIMIT = LIMIT
        assert above(50).result() == (50 > LIMIT, 50 > LIMIT), LIMIT
    print(kernel.summary().memoized)
"""


@pytest.mark.parametrize("executor", ["llex", "threads"])
def test_a_checkpoint_holds_what_each_key_says_over_runs(tmp_path: Path, executor: str) -> None:
    (tmp_path / "limits.py").write_text("LIMIT = 0\n")
    (tmp_path / "script.py").write_text(textwrap.dedent(CACHED))
    told = [run(tmp_path, "script.py", limit, executor).strip() for limit in ("10", "100")]
    assert told == ["0", "2"]


ARGUMENTS = """
import sys
import concurrent.futures
import flow
from flow.providers import LocalProvider
from flow.utils import get_all_checkpoints
import limits
from limits import Kind, Noted, helper

class Held:
    def __init__(self, function): self.function = function
    def far(self, x): return self.function(x), limits.LIMIT

@flow.python_app(cache=True)
def apply(functions, kinds, held, module, noted, x):
    return [f(x) for f in functions], kinds["k"]().far(x), held.far(x), module.LIMIT, noted[0].note, noted[0] + noted[0]

executors = {"llex": lambda: flow.LowLatencyExecutor(max_workers=1, provider=LocalProvider(max_blocks=1)),
             "pool": lambda: concurrent.futures.ProcessPoolExecutor(1),
             "threads": flow.ThreadPoolExecutor}
options = {"checkpoint_mode": "task_exit", "checkpoint_files": get_all_checkpoints()}
with flow.load(flow.Config(executors=[executors[sys.argv[1]]()], **options)) as kernel:
    for limits.LIMIT in (10, 20, 10, 30):
        noted = Noted(1, 2)
        noted.note = limits.LIMIT
        given = [helper, limits.helper], {"k": Kind}, Held(helper), limits, [noted], 2
        assert apply(*given).result() == apply.__wrapped__(*given), limits.LIMIT
    print(kernel.summary().memoized)
"""
LIMITS = """
import fractions
LIMIT = 0
def helper(x): return x * LIMIT
class Kind:
    def far(self, x): return helper(x) + 1
class Noted(fractions.Fraction): pass
"""


@pytest.mark.parametrize("executor", ["llex", "pool", "threads"])
def test_what_code_among_arguments_names_is_what_the_key_says_over_runs(tmp_path: Path, executor: str) -> None:
    (tmp_path / "limits.py").write_text(LIMITS)
    (tmp_path / "script.py").write_text(textwrap.dedent(ARGUMENTS))
    assert [run(tmp_path, "script.py", executor).strip() for _ in range(2)] == ["1", "4"]
