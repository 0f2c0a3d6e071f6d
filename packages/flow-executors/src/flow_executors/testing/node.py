"""A real manager under a test's own interchange: for tests of what happens on a node."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from flow_executors.manager.options import ManagerOptions
from flow_executors.testing.switchboard import Switchboard
from flow_executors.wire.auth import SECRET_NAME
from flow_executors.wire.messages import Registration, pack_exit
from flow_providers.interfaces.job_extras import secret_variable


class IsolatedNode:
    """A switchboard and one manager, started and registered; a context manager that leaves nothing running.

    Args:
        directory: For the key and the logs.
        options: Options of the manager that differ from two workers and quick heartbeats.
        environment: Additional variables, such as FLOW_FAULT.
        register: Whether to wait for the registration.
    """

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        register: bool = True,
        switchboard: Switchboard | None = None,
    ) -> None:
        self.board = switchboard or Switchboard()
        self.directory = directory
        secret = self.board.write_secret(directory / "keys" / "block")
        plain = ManagerOptions(
            "htex", self.board.run_id, self.board.block, ("127.0.0.1",), self.board.port, max_workers=2,
            heartbeat_period=0.2, heartbeat_threshold=5.0, logdir=str(directory / "logs"),
        )  # fmt: skip
        self.options = replace(plain, **(options or {}))  # type: ignore[arg-type]  # names are checked by replace
        with (directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                ["bash", "-c", "exec " + self.options.command()],
                env={**os.environ, **(environment or {}), secret_variable(SECRET_NAME): str(secret)},
                stderr=stderr,
                process_group=0,
            )
        self.offer: Registration | None = None
        self.held: tuple[int, ...] = ()
        if register:
            _, self.offer, self.held = self.board.welcome()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers as registered."""
        return self.offer.worker_pids if self.offer is not None else ()

    @property
    def stderr(self) -> str:
        """What the manager wrote to standard error."""
        return (self.directory / "stderr").read_text()

    def log(self, name: str = "manager.log") -> str:
        """Return a log of the manager or of a worker."""
        return "".join(path.read_text() for path in sorted((self.directory / "logs").rglob(name)))

    def below(self) -> list[int]:
        """Return the process ids of the manager's descendants."""
        return descendants(self.process.pid)

    def asleep(self) -> int:
        """Return how many workers are in ``time.sleep``: a sleeping task has begun."""
        return sum(command_of(pid).startswith("flow-w") and "nanosleep" in _read(pid, "wchan") for pid in self.below())

    def end(self) -> int:
        """Send the manager home and return its exit status."""
        self.board.send(pack_exit())
        return self.process.wait(20)

    def __enter__(self) -> IsolatedNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        below = [self.process.pid, *self.below()]
        if self.process.poll() is None:
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait(20)
        self.board.close()


def alive(pid: int) -> bool:
    """Say whether a process runs (zombies do not)."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return line[line.rindex(b")") + 2 : line.rindex(b")") + 3] not in (b"Z", b"X")


def command_of(pid: int) -> str:
    """Return the name of a process, empty if it is gone."""
    return _read(pid, "comm").strip()


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Return the process ids below a process."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        return found
    return found


def until(true: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait until something holds. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)
