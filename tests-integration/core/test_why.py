"""``flow why`` against a live script, from another process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.cli.main import main

SCRIPT = Path(__file__).with_name("waiting_run.py")


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "runinfo")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_live_script_is_asked_and_then_gone(
    script: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["why", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, out, err = ask()
    assert (code, err) == (0, "run runinfo/000:\n")
    assert out.startswith("2 tasks are unfinished:\n- task 0 (wait), running: try 1 runs since ")
    assert "- task 1 (after), pending: it waits for task 0 (wait), which is running" in out
    one = "task 1 (after) is pending:\n- it waits for task 0 (wait), which is running."
    assert ask("0", "1")[1].startswith(one)
    assert ask("--task", "1")[1].startswith(one)
    code, out, err = ask("runinfo/000", "7")
    assert (code, out) == (1, "")
    assert "none has that id yet: of 2 tasks 2 are unfinished" in err
    assert ask("0", "1", "--task", "1")[0] == 2

    script.send_signal(signal.SIGKILL)
    script.wait()
    code, _, err = ask("0")
    assert code == 1
    assert "its script was killed, or runs on another machine" in err
    assert "none of the 1 runs under runinfo goes on" in ask()[2]
    assert "there is no such directory" in ask("nowhere")[2]
