"""Simulated schedulers, for those that cannot be installed: programs for the PATH, and a scheduler in this process."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from shlex import quote
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from threading import Thread
from types import MappingProxyType

from flow_testing.schedulers.command import Called, CommandAnswer
from flow_testing.schedulers.scheduler import FakeScheduler
from flow_testing.schedulers.variant import SchedulerVariant

# Only schedulers that cannot be installed in a test are here; Slurm, Grid Engine and Torque are tested as they are.
COMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cobalt": ("qsub", "qstat", "qdel"),
        "condor": ("condor_submit", "condor_q", "condor_history", "condor_rm"),
        "lsf": ("bsub", "bjobs", "bkill"),
        "pbspro": ("qsub", "qstat", "qdel", "qselect"),
    }
)
"""The schedulers that can be simulated, and their commands."""
# bsub reads its script from standard input; the others read none, and must not wait for the end of one.
_READ_STDIN = frozenset({"bsub"})
_CLIENT = Path(__file__).with_name("client.py")
_POLL_S = 0.05  # seconds between two looks of the server for its end: close() waits that long at most


class SimulatedScheduler:
    """A scheduler whose commands are simulated: put ``programs`` in front of the PATH, and close it at the end.

    What the commands print has the shape of what OpenPBS 23.06, LSF 10.1, HTCondor 10 and Cobalt 1.0 print.

    Args:
        kind: One of ``COMMANDS``.
        folder: A directory for the programs and for copies of the scripts; made if missing.
        variant: How it misbehaves.

    Raises:
        ValueError: there is no simulation of that kind.
    """

    def __init__(self, kind: str, folder: Path, variant: SchedulerVariant = SchedulerVariant()) -> None:  # noqa: B008  # frozen
        if kind not in COMMANDS:
            raise ValueError(f"there is no simulation of {kind!r}: there are {', '.join(COMMANDS)}")
        self.programs = folder / "bin"
        # Not exist_ok: two schedulers in one directory would put their programs over each other.
        self.programs.mkdir(parents=True)
        self.scheduler = FakeScheduler(folder, variant)
        self._sockets = tempfile.TemporaryDirectory(prefix="flow-simulated-")  # paths of sockets must be short
        address = f"{self._sockets.name}/s"
        self._server = _Server(address, kind, self.scheduler)
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="flow-simulated", daemon=True)
        self._thread.start()
        for name in COMMANDS[kind]:
            _install(self.programs / name, address)

    def close(self) -> None:
        """End all jobs and answer no more; idempotent."""
        # Before the server: a job that ends may still call a command.
        self.scheduler.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._sockets.cleanup()

    def __enter__(self) -> SimulatedScheduler:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Server(ThreadingUnixStreamServer):
    # A thread that a command holds must not keep the test's process from ending.
    daemon_threads = True

    def __init__(self, address: str, kind: str, scheduler: FakeScheduler) -> None:
        self.simulate = import_module(f"flow_testing.schedulers.{kind}").simulate
        self.scheduler = scheduler
        super().__init__(address, _Handler)


class _Handler(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:  # a command that was killed before it asked
            return
        called = Called(**json.loads(line))
        try:
            answer: CommandAnswer = self.server.simulate(self.server.scheduler, called)
        except (OSError, ValueError, LookupError) as error:  # a script that is not there, or options nobody simulated
            answer = CommandAnswer().complain(
                f"{called.program}: not simulated, or wrong: {called.arguments}: {error}", 1
            )
        try:
            self.wfile.write(json.dumps(asdict(answer)).encode() + b"\n")
        except BrokenPipeError:  # the command was killed: it took too long
            return


def _install(program: Path, address: str) -> None:
    # -I and -S: neither site packages nor the user's variables are read, so that a command starts in 20 ms.
    words = [sys.executable, "-I", "-S", str(_CLIENT), address, program.name, str(int(program.name in _READ_STDIN))]
    # A shell script, since a "#!" line takes one argument only, and the path of Python may be longer than the kernel
    # takes there.
    program.write_text(f'#!/bin/sh\nexec {" ".join(quote(word) for word in words)} "$@"\n')
    program.chmod(0o755)
