"""Schedulers that nobody can install, played: real programs for the PATH in front of a scheduler in this process."""

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

from flow_providers.testing.fakes.command import Answer, Called
from flow_providers.testing.fakes.quirks import Quirks
from flow_providers.testing.fakes.scheduler import FakeScheduler

FACES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cobalt": ("qsub", "qstat", "qdel"),
        "condor": ("condor_submit", "condor_q", "condor_history", "condor_rm"),
        "lsf": ("bsub", "bjobs", "bkill"),
        "pbspro": ("qsub", "qstat", "qdel", "qselect"),
    }
)
"""The schedulers that can be played, and their commands."""
_READ_STDIN = frozenset({"bsub"})
_CLIENT = Path(__file__).with_name("client.py")
_POLL_S = 0.05


class PlayedScheduler:
    """A scheduler that is played: put ``programs`` in front of the PATH, and close it at the end.

    What the commands print has the shape of what OpenPBS 23.06, LSF 10.1, HTCondor 10 and Cobalt 1.0 print.

    Args:
        face: One of ``FACES``.
        folder: A directory for the programs and for copies of the scripts; made if missing.
        quirks: How it misbehaves.
    """

    def __init__(self, face: str, folder: Path, quirks: Quirks = Quirks()) -> None:  # noqa: B008  # frozen
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        self.scheduler = FakeScheduler(folder, quirks)
        self._sockets = tempfile.TemporaryDirectory(prefix="flow-played-")  # paths of sockets must be short
        address = f"{self._sockets.name}/s"
        self._server = _Server(address, face, self.scheduler)
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="flow-played", daemon=True)
        self._thread.start()
        for name in FACES[face]:
            _install(self.programs / name, address)

    def close(self) -> None:
        """End all jobs and answer no more; idempotent."""
        self.scheduler.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._sockets.cleanup()

    def __enter__(self) -> PlayedScheduler:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, address: str, face: str, scheduler: FakeScheduler) -> None:
        self.play = import_module(f"flow_providers.testing.fakes.faces.{face}").play
        self.scheduler = scheduler
        super().__init__(address, _Handler)


class _Handler(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:  # a command that was killed before it asked
            return
        answer: Answer = self.server.play(self.server.scheduler, Called(**json.loads(line)))
        try:
            self.wfile.write(json.dumps(asdict(answer)).encode() + b"\n")
        except BrokenPipeError:  # the command was killed: it took too long
            return


def _install(program: Path, address: str) -> None:
    words = [sys.executable, "-I", "-S", str(_CLIENT), address, program.name, str(int(program.name in _READ_STDIN))]
    program.write_text(f'#!/bin/sh\nexec {" ".join(quote(word) for word in words)} "$@"\n')
    program.chmod(0o755)
