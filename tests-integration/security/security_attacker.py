"""Runs programs as another user of the machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Attacker:
    """Another user.

    Attributes:
        uid: Number of the user.
        gid: Number of its group.
        home: Its home directory.
        python: A Python that it can run; it has the standard library only.
    """

    uid: int
    gid: int
    home: str
    python: str

    def start(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a Python program; who calls ends it."""
        return subprocess.Popen(
            [self.python, "-I", "-c", program, *map(str, arguments)],
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": self.home, "LANG": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, program: str, *arguments: object, timeout_s: float = 60.0) -> str:
        """Run a Python program to its end; return what it wrote, with its return code in front if that is not 0."""
        process = self.start(program, *arguments)
        try:
            text, _ = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
            process.wait()
        return text if process.returncode == 0 else f"return code {process.returncode}\n{text}"


FLOOD = """
import socket, sys
print("begun", flush=True)
while True:
    end = socket.socket(socket.AF_UNIX)
    end.setblocking(False)
    try:
        end.connect("\\0" + sys.argv[1])
    except OSError:
        pass
    end.close()
"""
"""Program that connects to an abstract socket of the name given, without end."""
