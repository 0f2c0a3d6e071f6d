"""Functions that contract tests run as tasks. Importable on a node; standard library only."""

from __future__ import annotations

import os
import signal
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.interfaces.call import NodeContext

_POLL_S = 0.005  # seconds; a task in another process is reached by files alone, so it has to poll


def nothing() -> None:
    """Return None, which is a result like any other."""


def double(value: int) -> int:
    """Return twice the value."""
    return 2 * value


def echo(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the arguments as they came."""
    return args, kwargs


def fail(text: str) -> None:
    """Raise ValueError with that text."""
    raise ValueError(text)


def fail_chained() -> None:
    """Raise RuntimeError('outer') from KeyError('inner')."""
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise RuntimeError("outer") from inner


class Stubborn(Exception):
    """An exception that cannot be rebuilt from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def fail_stubbornly() -> None:
    """Raise an exception that pickles but does not unpickle."""
    raise Stubborn("this", "that")


def fail_with_lock() -> None:
    """Raise an exception that does not pickle."""
    error = ValueError("has a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]  # the point: an attribute that cannot travel
    raise error


def return_lock() -> object:
    """Return a value that does not pickle."""
    return threading.Lock()


def exit_system() -> None:
    """Raise SystemExit, which is no Exception."""
    raise SystemExit(3)


def interrupt() -> None:
    """Raise KeyboardInterrupt, which is no Exception."""
    raise KeyboardInterrupt


def kill_self() -> None:
    """End the process that runs the task with SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def environment(name: str) -> str | None:
    """Return a variable of the task's environment."""
    return os.environ.get(name)


def hold(directory: str, name: str, limit_s: float = 120.0) -> str:
    """Make ``name.started``, wait until ``name.go`` or ``all.go`` is there or the directory is gone, return the name.

    Raises:
        TimeoutError: nothing let it go within ``limit_s``: no test leaves a task behind for ever.
    """
    # A directory, not a file: a task that is killed at this very moment must not leave an open file behind.
    os.makedirs(os.path.join(directory, f"{name}.started"), exist_ok=True)
    gates = (os.path.join(directory, f"{name}.go"), os.path.join(directory, "all.go"))
    deadline = time.monotonic() + limit_s
    while os.path.isdir(directory) and not any(os.path.exists(gate) for gate in gates):
        if time.monotonic() > deadline:
            raise TimeoutError(f"task {name} was not let go within {limit_s} s")
        time.sleep(_POLL_S)
    return name


class Bracket:
    """A step that puts its mark around the result of what is inside."""

    def __init__(self, mark: str) -> None:
        """Take the mark that stands beside the result."""
        self.mark = mark

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Run ``inner`` and return ``(mark, result)``."""
        return self.mark, inner()


class Whereabouts:
    """A step that returns where it runs instead of the result."""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Return (executor, key) of the context."""
        inner()
        return where.executor, int(where.key)


def on_a_thread(function: Callable[..., object], *args: object) -> object:
    """Call a function on a thread of this process, as workers of some engines do, and return what it returns."""
    from concurrent.futures import ThreadPoolExecutor  # here, so that other calls need not load it

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args).result()
