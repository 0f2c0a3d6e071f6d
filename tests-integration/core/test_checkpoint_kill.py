"""Runs killed with SIGKILL at any moment: what was seen done is never lost, and the next run always begins.

``FLOW_KILLS`` says how many times (50), ``FLOW_SEED`` at which moments; the seed is printed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from flow_core.checkpoint.compact import compact, verify
from flow_core.checkpoint.find import get_all_checkpoints

_SCRIPT = Path(__file__).with_name("killed_run.py")
_KILLS = int(os.environ.get("FLOW_KILLS", "50"))
_TASKS = 40


def _start(directory: Path, mode: str, fault: str = "", tasks: int = _TASKS) -> subprocess.Popen[str]:
    environment = {**os.environ, "FLOW_FAULT": fault, "PYTHONHASHSEED": str(random.randrange(1000))}
    command = [sys.executable, str(_SCRIPT), str(directory), mode, str(tasks)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _run(directory: Path, mode: str, kill_after: int | None = None, fault: str = "") -> tuple[set[int], list[str]]:
    """Run until it ends or has told of ``kill_after`` lines; return the tasks seen done and all lines."""
    process = _start(directory, mode, fault)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if kill_after is not None and len(lines) == kill_after:
                process.send_signal(signal.SIGKILL)
        process.wait(50)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
    # A killed writer's last line may be cut; a whole one ends with its newline.
    whole = [line.strip() for line in lines if line.endswith("\n")]
    return {int(line.split()[1]) for line in whole if line.startswith("done ")}, whole


def _moment(chance: random.Random) -> dict[str, object]:
    """Choose when to kill: at a line of output, or at a pass of a point around the write itself."""
    if chance.random() < 0.5:
        return {"kill_after": chance.randrange(1, _TASKS)}
    point = chance.choice(["checkpoint.before_write", "checkpoint.after_write"])
    return {"fault": f"{point}:{chance.randrange(1, 12)}:kill"}


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * _KILLS)
def test_no_task_seen_done_is_lost_or_run_again_however_often_the_run_is_killed(tmp_path: Path) -> None:
    seed = os.environ.get("FLOW_SEED") or str(random.randrange(10**9))
    print(f"FLOW_SEED={seed}")
    chance = random.Random(seed)
    safe: set[int] = set()
    counts: Counter[int] = Counter()
    for number in range(_KILLS):
        moment = _moment(chance)
        seen, lines = _run(tmp_path, "task_exit", **moment)  # type: ignore[arg-type]  # options of _run
        told = f"FLOW_SEED={seed}, kill {number} at {moment}"
        assert lines or "fault" in moment, f"the run did not begin ({told})"
        runs = _executions(tmp_path)
        again = [task for task in safe if runs[task] > counts[task]]
        assert again == [], f"tasks seen done before were run again ({told})"
        safe |= seen
        counts = runs
    seen, lines = _run(tmp_path, "task_exit")
    assert lines[-1] == "complete", f"FLOW_SEED={seed}"
    assert seen == set(range(_TASKS))
    assert [task for task in safe if _executions(tmp_path)[task] > counts[task]] == [], f"FLOW_SEED={seed}"


def _executions(directory: Path) -> Counter[int]:
    journal = directory / "journal"
    return Counter(int(line) for line in journal.read_text().split()) if journal.exists() else Counter()


def test_the_checkpoint_of_a_killed_run_holds_what_was_seen_done(tmp_path: Path) -> None:
    seen, _lines = _run(tmp_path, "task_exit", fault="checkpoint.after_write:8:kill")
    (place,) = get_all_checkpoints(tmp_path / "runinfo")
    info = verify(place)
    assert info.whole
    assert len(seen) <= info.records
    assert info.records >= 7  # one of the writes was that of details.log


@pytest.mark.parametrize("mode", ["dfk_exit", "periodic"])
def test_the_end_of_a_run_writes_what_the_mode_asks_for(tmp_path: Path, mode: str) -> None:
    _seen, lines = _run(tmp_path, mode)
    assert lines[-1] == "complete"
    (place,) = get_all_checkpoints(tmp_path / "runinfo")
    assert verify(place).keys == _TASKS


def test_a_second_run_runs_nothing_also_from_a_compacted_checkpoint(tmp_path: Path) -> None:
    _run(tmp_path, "task_exit", kill_after=_TASKS // 2)
    _run(tmp_path, "task_exit")
    before = _executions(tmp_path)
    places = get_all_checkpoints(tmp_path / "runinfo")
    done = compact(places)
    assert done.records_after == _TASKS
    for place in places[1:]:
        (Path(place) / "tasks.log").unlink()
    _seen, lines = _run(tmp_path, "task_exit")
    assert lines[-1] == "complete"
    assert _executions(tmp_path) == before


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("plain", 0),
        ("exception", 1),
        ("exit", 3),
        ("SIGINT", -2),
        ("SIGTERM", -15),
        ("loop", -15),
        ("SIGHUP", -1),
        ("both", -1),
        ("ignored SIGHUP", 0),
    ],
)
def test_mode_dfk_exit_writes_however_the_script_ends(tmp_path: Path, how: str, code: int) -> None:
    script = _SCRIPT.with_name("ended_run.py")
    command = [sys.executable, str(script), str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stderr
    (place,) = get_all_checkpoints(tmp_path / "runinfo")
    assert verify(place).keys >= 10
    assert "Traceback" not in done.stderr or how in ("exception", "SIGINT")
    log = (tmp_path / "runinfo" / "000" / "flow.log").read_text()
    assert "ended: " in log.splitlines()[-1]


@pytest.mark.parametrize("how", ["own handler", "own handler of SIGHUP"])
def test_a_handler_of_the_users_own_stays(tmp_path: Path, how: str) -> None:
    script = _SCRIPT.with_name("ended_run.py")
    command = [sys.executable, str(script), str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
