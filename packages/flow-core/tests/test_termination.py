"""Last calls when the process ends by SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys, time
import flow_core as flow
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.termination import at_termination

def fails():
    raise OSError("gone")

at_termination(fails)
for _ in range(2):
    at_termination(last := globals().setdefault("last", lambda: open(sys.argv[1], "a").write("called")))
flow.load(flow.Config(run_dir=sys.argv[2], executors=[ThreadPoolExecutor("t")]))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_last_calls_are_made_once_after_sigterm_whatever_one_of_them_raises(tmp_path: Path) -> None:
    told = tmp_path / "told"
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(told), str(tmp_path / "run")], capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == -signal.SIGTERM, ended.stderr
    assert told.read_text() == "called"
