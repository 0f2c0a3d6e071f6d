"""Record of a run in its directory: what it was, and how it ended. Kept of every run, with or without monitoring.

``runinfo/NNN/run.json`` is written when the run begins and again when it ends, each time as a whole. A run that was
killed has a record without an end. Readers take what they know of it, so later versions may add to it.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow_core.folders import closed_to_writers
from flow_core.kernel.failure_tally import FailureGroup
from flow_core.kernel.summary import Summary
from flow_core.own_files import open_own

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flow_core.interfaces.sinks import RunInfo

NAME = "run.json"
_KINDS: dict[Any, type] = {"str": str, "int": int, "bool": bool}  # of fields, as annotations are written
_BLOCK = 512  # bytes: the unit of st_blocks
_MOST = 1 << 20  # bytes of a record that are read: one with 200 groups of failures has less than a tenth


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run says of itself. Times are int64 nanoseconds UTC.

    Attributes:
        run_id: Its unique name.
        name: Its name: ``Config.name``, or the script's file.
        script: Path of the script, absolute; empty in an interactive session.
        user: Who ran it.
        host: Name of the machine of the script.
        pid: Process id of the script there.
        began_ns: When it began.
        executors: Labels of its executors.
        monitored: Whether its Config has monitoring.
        ended_ns: When it ended; None while it goes on, or if it was killed.
        tasks: Numbers of tasks as ``Summary`` has them; empty before the end.
        failures: Its failed tasks by app and type of exception; empty before the end.
    """

    run_id: str
    name: str
    script: str
    user: str
    host: str
    pid: int
    began_ns: int
    executors: tuple[str, ...] = ()
    monitored: bool = False
    ended_ns: int | None = None
    tasks: dict[str, int] = field(default_factory=dict)
    failures: tuple[FailureGroup, ...] = ()


def begun(info: RunInfo, executors: Iterable[str], monitored: bool) -> RunRecord:
    """Return the record of a run that begins in this process."""
    script = sys.argv[0] if sys.argv else ""
    return RunRecord(
        run_id=info.run_id,
        name=info.name,
        script=os.path.abspath(script) if script and os.path.exists(script) else "",
        user=_user(),
        host=socket.gethostname(),
        pid=os.getpid(),
        began_ns=info.started_ns,
        executors=tuple(executors),
        monitored=monitored,
    )


def write(run_dir: Path, record: RunRecord) -> None:
    """Write a record, whole or not at all.

    Where there is no room for another one, an earlier record is written over, without the failures: it has its room on
    the disk already, and a run that ended must not look like one that was killed.

    Raises:
        OSError: it cannot be written.
    """
    part = run_dir / f".{NAME}.part"
    try:
        with open(part, "w", encoding="utf-8", opener=closed_to_writers) as file:
            file.write(_text(record))
        os.replace(part, run_dir / NAME)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        if not _written_over(run_dir / NAME, _text(replace(record, failures=())).encode()):
            raise error


def _text(record: RunRecord) -> str:
    return json.dumps(asdict(record), indent=1) + "\n"


def _written_over(path: Path, data: bytes) -> bool:
    """Write over a file within the room that it has; return whether that could be done."""
    try:
        with open(path, "r+b", buffering=0) as file:
            if len(data) > max(os.fstat(file.fileno()).st_blocks * _BLOCK, os.fstat(file.fileno()).st_size):
                return False
            # One write: a reader finds the one record or the other. Spaces at the end mean nothing to JSON.
            return file.write(data.ljust(os.fstat(file.fileno()).st_size)) >= len(data)
    except OSError:
        return False


def read(run_dir: Path) -> RunRecord | None:
    """Return the record of a run; None where there is none that can be used: of an older run, say, or a stranger's."""
    try:
        # Its owner is that of the directory, or the reader: nobody else can have put it there.
        with open_own(run_dir / NAME, frozenset([os.stat(run_dir).st_uid])) as file:
            found = json.loads(file.read(_MOST))
        return _record(found)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as containers have it
        return str(os.geteuid())


def _record(found: dict[str, Any]) -> RunRecord:
    """Return a record from what JSON gave. Raises ValueError, TypeError, AttributeError: it is none, or damaged."""
    counts = {str(name): _checked(int, number) for name, number in found.get("tasks", {}).items()}
    if counts:  # by name, so that those may be missing which a later version counts
        counts = {**asdict(Summary()), **counts}
    failures = (
        FailureGroup(**{one.name: _checked(_KINDS[one.type], each[one.name]) for one in fields(FailureGroup)})
        for each in _checked(list, found.get("failures", []))
        if isinstance(each, dict) and each.keys() >= {one.name for one in fields(FailureGroup)}
    )
    plain = {
        one.name: _checked(_KINDS[one.type], found[one.name])
        for one in fields(RunRecord)
        if one.type in _KINDS and one.name in found
    }
    ended_ns = found.get("ended_ns")
    return RunRecord(
        **plain,
        executors=tuple(map(str, _checked(list, found.get("executors", [])))),
        ended_ns=None if ended_ns is None else _checked(int, ended_ns),
        tasks=counts,
        failures=tuple(failures),
    )


def _checked(kind: type, value: Any) -> Any:
    """Return a value that is of a kind, an int within int64 and not negative. Raises ValueError."""
    whole: Any = value
    if type(value) is not kind or (kind is int and not 0 <= whole < 1 << 63):
        raise ValueError(f"{value!r:.40} is no {kind.__name__}")
    return value
