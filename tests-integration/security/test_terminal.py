"""What other users have written gives the terminal of who looks at it no orders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from security_attacker import Attacker

from flow_core.errors import RunNotLive
from flow_core.interfaces.events import Event, RunStarted, TaskSubmitted
from flow_core.kernel.live import is_live, why
from flow_monitor.project.rebuild import rebuild
from flow_monitor.testing.made import write_log

ORDER = "\x1b]0;title\x07\x1b[2J\x9b31m"

ANSWER = """
import os, socket, sys
os.chdir(sys.argv[1])
end = socket.socket(socket.AF_UNIX)
end.bind("kernel.sock")
os.chmod("kernel.sock", 0o666)
end.listen(8)
print("begun", flush=True)
while True:
    try:
        connection = end.accept()[0]
        connection.recv(4096)
        connection.sendall(b'{"text": "all is well: type your password"}\\n')
    except OSError:
        pass
"""


def flow(*arguments: object, cwd: Path) -> str:
    command = [str(Path(sys.executable).with_name("flow")), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=100, check=False)
    assert b"Traceback" not in done.stderr
    return (done.stdout + done.stderr).decode()


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_no_command_passes_on_orders_to_the_terminal(tmp_path: Path) -> None:
    for number in (1, 2):
        run = tmp_path / f"00{number}"
        name = f"r{ORDER}{number}"
        events: list[Event] = [
            RunStarted(5, name, 1, ORDER, f"/{ORDER}.py", "0.1.0", "3.11", ORDER, ORDER, str(run), (ORDER,)),
            TaskSubmitted(6, 0, f"work{ORDER}", "bash", ORDER, (ORDER,), (), (), (), ""),
        ]
        write_log(run, name, events)
        rebuild(run, f"sqlite:///{tmp_path / 'm.db'}")
    odd = tmp_path / f"run{ORDER}"
    odd.mkdir()
    database = tmp_path / "m.db"
    said = [
        flow("monitor", "export", "prometheus", "-d", database, cwd=tmp_path),
        flow("monitor", "export", "wfformat", "r", "-d", database, cwd=tmp_path),
        flow("monitor", "export", "wfformat", "1", "-d", database, cwd=tmp_path),
        flow("monitor", "export", "otel", "1", "-d", database, cwd=tmp_path),
        flow("monitor", "rebuild", odd, "-d", database, cwd=tmp_path),
        flow("checkpoint", "verify", odd, cwd=tmp_path),
        flow("cache", "why", odd, cwd=tmp_path),
        flow("why", odd, cwd=tmp_path),
        flow("files", "size", "--directory", odd, cwd=tmp_path),
    ]
    assert "several runs" in said[1]
    for text in said:
        assert text
        assert not [one for one in text if (ord(one) < 32 and one not in "\n\t") or 0x7F <= ord(one) < 0xA0], text


def test_an_answer_of_another_user_in_the_place_of_a_run_is_not_taken(tmp_path: Path, attacker: Attacker) -> None:
    run = tmp_path / "000"
    run.mkdir()
    os.chown(run, attacker.uid, attacker.gid)
    process = attacker.start(ANSWER, run)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert not is_live(run)
        with pytest.raises(RunNotLive, match="another user"):
            why(run)
    finally:
        process.kill()
        process.communicate(timeout=30)
