"""Helpers that programs take from Parsl's utilities."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import IO, Any

import flow
from flow_core.errors import FlowError
from flow_core.starting import starting

RECORDED = "2026.10.26"
"""The release of Parsl whose names are offered."""

VERSION = f"{RECORDED}+flow{flow.__version__}"


def get_version() -> str:
    """Return the version."""
    return VERSION


class OptionalModuleMissing(FlowError):
    """A Python package is missing that something needs."""

    def __init__(self, module_names: list[str], reason: str) -> None:
        super().__init__(f"the Python package(s) {', '.join(module_names)} must be installed: {reason}")
        self.module_names, self.reason = module_names, reason


class RepresentationMixin:
    """Gives a class a repr of its constructor's arguments, which are attributes of the same names."""

    def __repr__(self) -> str:
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        missing = [name for name in names if not hasattr(self, name)]
        if missing:
            raise AttributeError(f"{type(self).__name__}: {missing[0]!r} is an argument, and no attribute")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class AtomicIDCounter:
    """Numbers from 0, each given once."""

    def __init__(self) -> None:
        self._lock, self.count = threading.Lock(), 0

    def get_id(self) -> int:
        """Return the next number."""
        with self._lock:
            number, self.count = self.count, self.count + 1
            return number


class Timer:
    """Calls a function every ``interval`` seconds, on a thread, until it is closed."""

    def __init__(self, callback: Callable[..., Any], *args: Any, interval: float = 5, name: str | None = None) -> None:
        self.interval, self.callback, self._args = interval, callback, args
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name or "Timer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self.interval):
            self.make_callback()

    def make_callback(self) -> None:
        """Call the function; what it raises is logged."""
        import logging

        try:
            self.callback(*self._args)
        except Exception:
            logging.getLogger("flow.compat").exception("the callback of a Timer failed")

    def close(self) -> None:
        """End the calls; waits for one that runs."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(60)


class AutoCancelTimer(threading.Timer):
    """A timer that is cancelled when its ``with`` block ends."""

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_error: object) -> None:
        self.cancel()


def execute_wait(cmd: str, walltime: int | None = None) -> tuple[int, str, str]:
    """Run a command of the shell; return exit code, standard output and error. Raises subprocess.TimeoutExpired."""
    with starting():
        process = subprocess.Popen(
            ["/bin/sh", "-c", cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    try:
        out, error = process.communicate(timeout=walltime)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        raise
    return process.returncode, out, error


def wtime_to_minutes(time_string: str) -> int:
    """Return the minutes of ``HH:MM:SS``, at least 1."""
    hours, minutes, _seconds = time_string.split(":")
    return max(1, int(hours) * 60 + int(minutes))


def get_std_fname_mode(fdname: str, stdfspec: Any) -> tuple[str, str]:
    """Return path and mode of a target of standard output or error. Raises BadStdStreamFile."""
    from flow_core.errors import BadStdStreamFile

    if isinstance(stdfspec, tuple):
        if len(stdfspec) != 2 or not isinstance(stdfspec[1], str):
            raise BadStdStreamFile(f"{fdname}: must be a path, or a path and a mode, not {stdfspec!r}")
        path, mode = stdfspec
    else:
        path, mode = stdfspec, "a+"
    if not isinstance(path, str | os.PathLike):
        raise BadStdStreamFile(f"{fdname}: must be a path, or a path and a mode, not {stdfspec!r}")
    return os.fsdecode(path), mode


@contextmanager
def wait_for_file(path: str, seconds: int = 10) -> Iterator[None]:
    """Wait until a file is there, then run the block. Raises TimeoutError."""
    pause = threading.Event()
    for _ in range(seconds * 100):
        if Path(path).exists():
            break
        pause.wait(0.01)
    else:
        raise TimeoutError(f"{path} was not there after {seconds} s")
    yield


@contextmanager
def time_limited_open(path: str, mode: str, seconds: int = 1) -> Iterator[IO[Any]]:
    """Wait until a file is there, and open it for the block. Raises TimeoutError."""
    with wait_for_file(path, seconds), open(path, mode) as stream:
        yield stream


def setproctitle(title: str) -> None:
    """Name the process, where the package setproctitle is installed."""
    try:
        import setproctitle as package  # type: ignore[import-not-found]
    except ImportError:
        return
    package.setproctitle(title)


def sanitize_dns_label_rfc1123(raw_string: str) -> str:
    """Return the text as a label of a name in DNS: letters, digits and hyphens, at most 63."""
    label = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", raw_string.lower())).strip("-")[:63].rstrip("-")
    if not label:
        raise ValueError(f"nothing of {raw_string!r} can stand in a name of DNS")
    return label


def sanitize_dns_subdomain_rfc1123(raw_string: str) -> str:
    """Return the text as a name in DNS: labels with dots between them, at most 253 characters."""
    labels = [sanitize_dns_label_rfc1123(part) for part in raw_string.split(".") if re.search("[a-zA-Z0-9]", part)]
    if not labels:
        raise ValueError(f"nothing of {raw_string!r} can stand in a name of DNS")
    return ".".join(labels)[:253].rstrip("-.")


def tcp_url(address: str, port: str | int | None = None) -> str:
    """Return the URL of an address as ZeroMQ has it."""
    host = f"[{address}]" if ":" in address else address
    return f"tcp://{host}" if port is None else f"tcp://{host}:{port}"


def get_all_addresses() -> set[str]:
    """Return all addresses of this machine at which another may reach it."""
    from flow_executors.addresses import candidate_addresses

    return set(candidate_addresses())


def get_any_address() -> str:
    """Return one of them. Raises ValueError where there is none."""
    found = sorted(get_all_addresses())
    if not found:
        raise ValueError("this machine has no address but that of the loopback")
    return found[0]


def wrap_with_logs(fn: Callable[..., Any] | None = None, target: str = "flow.compat") -> Callable[..., Any]:
    """Decorate a function so that what it raises is logged, and raised on."""
    import logging

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def logging_errors(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception:
                logging.getLogger(target).exception("%s failed", function.__name__)
                raise

        return logging_errors

    return decorate if fn is None else decorate(fn)


class UsageInformation:
    """Says what of an object usage tracking may tell; Flow tells no more than how many executors there are."""

    def get_usage_information(self) -> dict[str, Any]:
        """Return what may be told."""
        return {}


def get_parsl_usage(obj: Any) -> list[Any]:
    """Return what an object says of itself for usage tracking."""
    if isinstance(obj, list | tuple):
        return get_parsl_usage_sequence(obj)
    if isinstance(obj, UsageInformation):
        return [f"{type(obj).__module__}.{type(obj).__name__}", obj.get_usage_information()]
    return get_parsl_usage_representation_mixin(obj) if isinstance(obj, RepresentationMixin) else []


def get_parsl_usage_representation_mixin(obj: RepresentationMixin) -> list[Any]:
    """Return the name of an object's class, and what its arguments say of themselves."""
    names = [name for name in inspect.signature(type(obj).__init__).parameters if name != "self"]
    found = [get_parsl_usage(getattr(obj, name, None)) for name in names]
    return [f"{type(obj).__module__}.{type(obj).__name__}", *(one for one in found if one)]


def get_parsl_usage_sequence(obj: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Return what the items of a sequence say of themselves."""
    return [get_parsl_usage(item) for item in obj]


def make_rundir(path: str) -> str:
    """Make the next numbered directory of runs; return its path."""
    from flow_core.kernel.rundir import make_run_dir

    return str(make_run_dir(path, "private", frozenset()))


def join_terminate_close_proc(process: Any, *, timeout: int = 30) -> None:
    """Wait for a process of multiprocessing, end it if it does not end by itself, and close it."""
    process.join(timeout)
    if process.is_alive():
        process.terminate()
        process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join(timeout)
    process.close()
