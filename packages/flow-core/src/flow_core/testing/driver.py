"""Test driver of one executor: submits tries and waits for their outcomes, as the kernel would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Outcome
from flow_core.testing import calls
from flow_core.testing.recording import RecordingListener, make_context


class Driver:
    """One executor with a recording listener: what the kernel would be, for a test.

    Attributes:
        executor: The executor.
        listener: What it reported.
        keys: Keys that ``submit`` took.
        gates: Directory of the marks of held tasks.
    """

    def __init__(self, executor: Executor, directory: Path, timeout_s: float) -> None:
        """Take an executor that is not started, a directory, and the bound of every wait in seconds."""
        self.executor = executor
        self.listener = RecordingListener()
        self.keys: list[TryKey] = []
        self.gates = directory / "gates"
        self.gates.mkdir(parents=True, exist_ok=True)
        self._timeout_s = timeout_s
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._context = make_context(directory, self.listener, label=executor.label, start_timeout_s=timeout_s)

    def start(self) -> None:
        """Start the executor with a context of the test's own. Raises what its ``start`` raises."""
        self.executor.start(self._context)

    def submit(self, func: Callable[..., object], /, *args: object, **kwargs: object) -> TryKey:
        """Submit one call; return its key."""
        return self.submit_call(Call(func, args, kwargs))

    def submit_call(self, call: Call, key: TryKey | None = None) -> TryKey:
        """Submit one Call under a new key, or the one given."""
        key = key if key is not None else TryKey(next(self._numbers))
        # A report from inside submit() is a breach: the kernel holds its own state then.
        with self.listener.submitting():
            self.executor.submit(key, call)
        # After submit() has returned: a call that was refused by an exception has no outcome.
        with self._lock:
            self.keys.append(key)
        return key

    def hold(self, name: str) -> TryKey:
        """Submit a task that runs until it is released."""
        return self.submit(calls.hold, str(self.gates), name)

    def wait_held(self, name: str) -> None:
        """Wait until the held task of that name runs."""
        mark = self.gates / f"{name}.started"
        self.poll(mark.exists, f"task {name!r} did not start")

    def release(self, name: str = "all") -> None:
        """Let one held task go, or all."""
        (self.gates / f"{name}.go").touch()

    def poll(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait for something that no event reports. Raises AssertionError with the complaint on time-out."""
        deadline = time.monotonic() + self._timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{complaint} within {self._timeout_s} s"
            threading.Event().wait(0.005)

    def outcome(self, key: TryKey) -> Outcome:
        """Return the outcome of a key, waiting for it."""
        # Executors may buffer until they hear that somebody waits.
        self.executor.flush()
        return self.listener.wait_for([key], self._timeout_s)[0]

    def outcomes(self, keys: Sequence[TryKey]) -> list[Outcome]:
        """Return the outcomes of keys, waiting for them."""
        self.executor.flush()
        return self.listener.wait_for(keys, self._timeout_s)

    def shutdown(self, timeout_s: float = 2.0) -> None:
        """Shut the executor down, in a thread of its own so that one that hangs is found out."""
        failures: list[BaseException] = []

        def run() -> None:
            """Shut down, and keep what that raises for the test's own thread."""
            try:
                self.executor.shutdown(timeout_s)
            except BaseException as error:
                failures.append(error)

        # On a thread, since a shutdown that never returns would hang the test run with it.
        thread = threading.Thread(target=run, name="contract-shutdown", daemon=True)
        thread.start()
        thread.join(timeout_s + self._timeout_s)
        assert not thread.is_alive(), f"shutdown({timeout_s}) did not return within {timeout_s + self._timeout_s} s"
        if failures:
            raise failures[0]

    def check(self) -> None:
        """Check that every key taken has one outcome, no other key has any, and no rule was broken."""
        # Outcomes of tries that were reported as ended are made on other threads.
        self.listener.wait_made(self._timeout_s)
        assert self.listener.breaches == []
        assert set(self.listener.outcomes) == set(self.keys)
        for outcomes in self.listener.outcomes.values():
            assert len(outcomes) == 1
