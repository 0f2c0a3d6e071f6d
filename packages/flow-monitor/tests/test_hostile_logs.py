"""Event logs that somebody else has written: they are refused in a line, within bounds, and nothing of them is kept."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flow_core.interfaces.events import RunStarted, TaskSubmitted
from flow_monitor.errors import MonitorError
from flow_monitor.log import records
from flow_monitor.log.frames import pack
from flow_monitor.project.rebuild import rebuild
from flow_monitor.queries import workflows
from flow_monitor.queries.database import open_database
from flow_monitor.testing.made import write_log

_ODD: list[object] = [0, 1, -1, 1 << 31, 1 << 63, 1 << 70, -(1 << 70), 1e308, True, None, "", "x", "\x00", "\ud800"]
_ODD += ["9" * 5000, [], {}, [[]], [0], ["a"], [["a"]], [1, "a", None], {"a": 1}]


def rows_of(chance: random.Random) -> list[list[object]]:
    """Rows of events of all kinds, some of whose fields are none of theirs."""
    found: list[list[object]] = []
    for code, cls in enumerate(records.EVENT_TYPES):
        row: list[object] = [code, *(chance.choice([0, "t", chance.choice(_ODD)]) for _ in records._FIELDS[cls])]
        found.append(row if chance.random() < 0.8 else row[: chance.randrange(len(row) + 1)])
    chance.shuffle(found)
    return found


def log_with(top: Path, *frames: bytes) -> Path:
    run = top / "000"
    write_log(
        run,
        "r",
        [
            RunStarted(5, "r", 1, "x.py", "/x.py", "0.1.0", "3.11", "h", "u", str(run), ("t",)),
            TaskSubmitted(6, 0, "work", "bash", "", ("t",), ()),
        ],
    )
    with (run / "monitoring" / "events.log").open("ab") as log:
        log.write(b"".join(frames))
    return run


@pytest.mark.parametrize("seed", range(20))
def test_values_that_no_event_has_are_refused_and_nothing_is_kept(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    places = [[chance.choice(_ODD) for _ in range(6)] for _ in range(3)]
    run = log_with(tmp_path, *(pack(json.dumps([places, [row]]).encode()) for row in rows_of(chance)))
    with pytest.raises(MonitorError, match=r"events\.log"):
        rebuild(run, f"sqlite:///{tmp_path}/m.db")
    with open_database(f"{tmp_path}/m.db") as opened, opened.connect() as connection:
        assert list(workflows.page(connection).items) == []


@pytest.mark.parametrize(
    "payload",
    [b"[" * 100_000 + b"]" * 100_000, b"null", b"5", b'"text"', b"[[]]", b"[[],5]", b"[[],[5]]", b"[[],[[99]]]"],
    ids=lambda payload: payload[:12].decode(),
)
def test_batches_that_are_none_are_skipped_as_damage(payload: bytes, tmp_path: Path) -> None:
    assert rebuild(log_with(tmp_path, pack(payload)), f"sqlite:///{tmp_path}/m.db").events == 2


@pytest.mark.parametrize("payload", [b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"flow_events":1}', b'{"a":[]}'])
def test_a_header_that_is_none_is_refused(payload: bytes, tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="no readable header"):
        rebuild(log_with(tmp_path, pack(payload)), f"sqlite:///{tmp_path}/m.db")


@pytest.mark.slow
@pytest.mark.parametrize("unit", [b"[],", b'"a",', b"1.5,", b"{},"])
def test_the_longest_frame_takes_bounded_memory(unit: bytes, tmp_path: Path) -> None:
    frame = pack(b"[[],[" + unit * ((63 << 20) // len(unit)) + b"0]]")
    run = log_with(tmp_path, frame)
    program = (
        "import sys, pathlib\n"
        "from flow_monitor.project.rebuild import rebuild\n"
        "print(rebuild(pathlib.Path(sys.argv[1]), sys.argv[2]).events)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run), f"sqlite:///{tmp_path}/m.db"],
        capture_output=True, text=True, timeout=100, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20)),
    )  # fmt: skip
    assert done.stdout == "2\n", done.stderr
