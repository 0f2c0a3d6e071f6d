"""Tasks in the sandbox of an engine that shares nothing with the script: it brings files, runs a command, takes files.

The command is ``python LEAF run TASK RESULT`` in the sandbox, where LEAF is an archive of ``flow_core``. Beside the
task lie the files that it is given, and a list of them; what it makes is put into one directory, with a list as well.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from flow_core.errors import MissingInputs, StagingError
from flow_core.prctl import die_with_parent
from flow_core.remote.parcel_run import run_parcel

GIVEN = "given.json"
"""The list of what a task is given, and the directory of its contents, both in the sandbox."""
GIVEN_FILES = "given"
MADE = "made"
"""The directory of what a task has made, as ``0``, ``1`` and so on; and in it the list of that."""
MADE_LIST = "list.json"
_SHOWN = 5  # names of missing files in a message

_home = ""


@dataclass(frozen=True, slots=True)
class SandboxFiles:
    """The way to files of the script's machine, for a task in a sandbox: they are in it already."""

    def begin(self) -> SandboxSession:
        """Return the files of the task that runs. Raises StagingError: this is no sandbox."""
        return SandboxSession(_home)


class SandboxSession:
    """The files of one task in its sandbox. One thread."""

    def __init__(self, home: str) -> None:
        """Begin. Raises StagingError: this is no sandbox."""
        self._home = home
        self.root = os.path.join(home, "files")
        self._sent: list[list[object]] = []
        try:
            os.makedirs(self.root, exist_ok=True)
            with open(os.path.join(home, GIVEN)) as stream:
                self._given = json.load(stream)
        except (OSError, ValueError) as error:
            raise StagingError(f"the engine has brought no list of the files of this task: {error}") from error

    def bring(self, places: Sequence[str], own: Sequence[int]) -> None:
        """Put what the task is given at its places. Raises MissingInputs, StagingError."""
        if missing := self._given["missing"]:
            listed = ", ".join(missing[:_SHOWN]) + (
                f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            )
            raise MissingInputs(
                f"the task was not started, since it lacks inputs: {listed}: they do not exist on the script's machine",
                missing,
            )
        if self._given["error"]:
            raise StagingError(self._given["error"])
        owned = set(own)
        try:
            for number, place in enumerate(places):
                if number in owned:
                    os.makedirs(os.path.dirname(os.path.join(self.root, place)), exist_ok=True)
            for number, member, kind, mode, name in self._given["entries"]:
                path = os.path.join(self.root, places[number], member).rstrip("/")
                if kind == "d":
                    os.makedirs(path, exist_ok=True)
                    continue
                os.makedirs(os.path.dirname(path), exist_ok=True)
                source = os.path.join(self._home, name)
                if number in owned or not _linked(source, path):
                    shutil.copyfile(source, path)
                    os.chmod(path, mode | 0o200)
        except OSError as error:
            raise StagingError(f"a file that the engine has brought is not in the sandbox: {error}") from error

    def send(self, files: Sequence[tuple[int, str, str]]) -> None:
        """Have the engine take files: each the number of what was declared, its member of that, its path."""
        made = os.path.join(self._home, MADE)
        try:
            for number, member, path in files:
                if os.path.isdir(path):
                    self._sent.append([number, member, "d", os.stat(path).st_mode & 0o777, ""])
                    continue
                name = str(len(self._sent))
                there = os.path.join(made, name)
                if os.path.islink(path) or not _linked(path, there):
                    shutil.copyfile(path, there)
                self._sent.append([number, member, "f", os.stat(path).st_mode & 0o777, name])
            write_whole(os.path.join(made, MADE_LIST), json.dumps(self._sent).encode())
        except OSError as error:
            raise StagingError(f"what the task has made cannot be kept for the engine: {error}") from error

    def close(self) -> None:
        """Do nothing: the engine removes the sandbox."""


def run(task: str, result: str) -> int:
    """Run the tasks of one file and write their results to another; return the exit status. On the main thread."""
    global _home
    _home = os.getcwd()
    _end_with_worker()
    try:
        os.makedirs(os.path.join(_home, MADE), exist_ok=True)
        # Taken, so that nobody runs it again: engines give tasks of lost workers to others.
        taken = f"{task}.{os.uname().nodename}.{os.getpid()}"
        os.rename(task, taken)
        with open(taken, "rb") as stream:
            parcels = pickle.loads(stream.read())
    except (OSError, pickle.UnpicklingError, EOFError) as error:
        sys.stderr.write(f"flow: the task cannot be read: {error}\n")
        return 2
    results = []
    for parcel in parcels:
        results.append(run_parcel(parcel))
        os.chdir(_home)
    try:
        write_whole(result, pickle.dumps(results, protocol=5))
    except OSError as error:
        sys.stderr.write(f"flow: the result cannot be written: {error}\n")
        return 2
    return 0


def write_whole(path: str, data: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with open(path + ".part", "wb") as stream:
        stream.write(data)
    os.replace(path + ".part", path)


def _end_with_worker() -> None:
    """End when the engine's worker does, and hold nothing of its open: a killed worker's connection would live on."""
    with suppress(OSError, AttributeError, ImportError):  # a Python without ctypes: the task outlives its worker
        die_with_parent()
    os.closerange(3, 1024)


def _linked(source: str, path: str) -> bool:
    """Give a file a second name; False where the file system cannot."""
    if os.path.lexists(path):
        os.unlink(path)
    try:
        os.link(os.path.realpath(source), path)
    except OSError:
        return False
    return True
