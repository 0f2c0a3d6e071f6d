"""Apps of ranks for tests, and what is left of them on this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from flow_core import bash_app, mpi_app, python_app

PATIENCE_S = 120.0
"""Seconds that tests wait for one thing: on a busy machine four nodes and their workers may need a minute to start."""


@bash_app
def hosts_of_ranks(stdout: str = "") -> str:
    return "$FLOW_MPI_PREFIX hostname"


@bash_app
def command_of_ranks(command: str, stdout: str | None = None) -> str:
    return f"$FLOW_MPI_PREFIX {command}"


@mpi_app(gather=True)
def whole(number: int) -> tuple[int, int, str]:
    from os import uname

    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.Get_rank(), world.allreduce(number), uname().nodename


@mpi_app(gather=True)
def devices(place: str, guests: int) -> tuple[str, str]:
    """Return node and devices of each rank, when so many tasks run at once: each leaves a file in a directory."""
    import os
    import time
    from pathlib import Path

    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.Get_rank() == 0:
        Path(place).mkdir(exist_ok=True)
        Path(place, os.environ["FLOW_MPI_TASK"]).touch()
        while len(os.listdir(place)) < guests:
            time.sleep(0.02)
    world.Barrier()
    return os.uname().nodename, os.environ["CUDA_VISIBLE_DEVICES"]


@mpi_app
def large(size: int) -> bytes:
    return b"x" * size


@mpi_app
def leaving_a_daemon(quiet: bool) -> str:
    """Fork a daemon that rests for longer than any test, with the standard streams of its rank unless it is quiet."""
    import os
    import time

    if os.fork() == 0:
        os.setsid()
        if quiet:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
        time.sleep(300)
        os._exit(0)
    return "returned"


@mpi_app
def failing(rank: int) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.Get_rank() == rank:
        raise ValueError(f"of rank {rank}")
    MPI.COMM_WORLD.Barrier()


@mpi_app
def calling_nobody() -> None:
    from mpi4py import MPI

    MPI.COMM_WORLD.send("word", dest=99)


@mpi_app
def finalizing() -> int:
    from mpi4py import MPI

    MPI.Finalize()
    return 1


@mpi_app
def resting(told: str) -> None:
    """Write host, pid and parent of each rank into a file, and rest for longer than any test."""
    import os
    import time

    from mpi4py import MPI

    world = MPI.COMM_WORLD
    ranks = world.gather((os.uname().nodename, os.getpid(), os.getppid()))
    if ranks is not None:
        with open(f"{told}.part", "w") as file:
            file.writelines(f"{host} {pid} {parent}\n" for host, pid, parent in ranks)
        os.replace(f"{told}.part", told)
    time.sleep(300)


@bash_app
def logged(log: str, seconds: float) -> str:
    return (
        f"$FLOW_MPI_PREFIX bash -c 'begin=$(date +%s.%N); sleep {seconds};"
        f" echo ranks $FLOW_MPI_TASK $(hostname) $begin $(date +%s.%N) >> {log}.$$.$RANDOM'"
    )


@python_app
def serial(log: str, seconds: float) -> None:
    import os
    import time
    import uuid

    begin = time.time()
    time.sleep(seconds)
    with open(f"{log}.{uuid.uuid4().hex}", "w") as file:
        file.write(f"serial - {os.uname().nodename} {begin} {time.time()}\n")


def ranks_told(path: Path, future: Future[None]) -> list[tuple[str, int, int]]:
    """Wait until ``resting`` has told its ranks; return host, pid and parent of each.

    Raises:
        Exception: what the task has failed with instead.
    """
    wait_until(lambda: path.exists() or future.done())
    if not path.exists():
        future.result(0)
    return [(host, int(pid), int(parent)) for host, pid, parent in map(str.split, path.read_text().splitlines())]


def left() -> list[str]:
    """Return the processes of this machine that belong to some task of ranks."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if b"\0FLOW_MPI_TASK=" in b"\0" + environment:
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            continue
    return found


def wait_until(true: Callable[[], object]) -> None:
    """Wait until a function returns something; fail the test after a while, with the processes that tasks have."""
    pause, ends = threading.Event(), time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, f"{true} did not come within {PATIENCE_S:g} s; there are {left()}"
        pause.wait(0.05)
