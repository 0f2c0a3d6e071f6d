"""A machine of a fake cloud: its user data runs for real, as a process of this machine that cannot switch it off."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from flow_providers.starting import starting
from flow_testing.clouds.kubelet import sweep

# Programs of the same names come first on the script's PATH: they only leave a mark, and this machine stays on.
_SWITCHES = ("shutdown", "poweroff", "halt", "reboot")
# Ends in the middle of a line: the kernel writes to the console at any time, and the job's first line is appended to
# that.
_BOOTING = "[    0.000000] Linux version 6.1.0\r\n[    1.000000] systemd[1]: Started cloud-init.\r\n[    2.0"


class FakeMachine:
    """Runs a script as a first boot does; ``shutdown`` switches the machine off and this one not.

    Args:
        user_data: The script.
        on_halt: Called, by a thread of the machine, when it has switched itself off.
    """

    def __init__(self, user_data: str, on_halt: Callable[[], None]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fake-machine-")
        self._on_halt = on_halt
        self._path = Path(self._folder.name)
        self._kept = ""
        for name in _SWITCHES:
            switch = self._path / "bin" / name
            switch.parent.mkdir(exist_ok=True)
            switch.write_text('#!/bin/bash\n: >"$FAKE_MACHINE/off"\n')
            switch.chmod(0o755)
        (self._path / "tmp").mkdir()
        (self._path / "user-data").write_text(user_data)
        self._process = self._boot()
        self._thread = Thread(target=self._watch, name="fake-machine", daemon=True)
        self._thread.start()

    @property
    def console(self) -> str:
        """The text on its serial console, with the lines of the system; kept after the machine's end."""
        # The disk may be removed meanwhile; what it showed last is kept.
        with suppress(OSError):
            return (self._path / "console").read_text(errors="replace")
        return self._kept

    def end(self) -> None:
        """Cut the power, and remove its disk. Idempotent."""
        # Power is cut: nothing of the script's session stays.
        sweep(self._process.pid)
        self._thread.join(15)
        self._kept = self.console
        self._folder.cleanup()

    def _boot(self) -> subprocess.Popen[bytes]:
        (self._path / "console").write_text(_BOOTING)
        environment = {
            "PATH": f"{self._path / 'bin'}:{os.environ['PATH']}",
            "TMPDIR": str(self._path / "tmp"),
            "FAKE_MACHINE": str(self._path),
        }
        with (self._path / "console").open("ab") as console, starting():
            return subprocess.Popen(
                ["bash", str(self._path / "user-data")],
                env=environment,
                cwd=self._path,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self) -> None:
        self._process.wait()
        if (self._path / "off").exists():
            sweep(self._process.pid)
            self._on_halt()
