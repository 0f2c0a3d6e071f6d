"""How often and how long a transfer is tried again, and what may end it early."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

from flow_core.errors import ConfigurationError
from flow_staging.transfer.failures import Dropped, Refused, Stopped

PROGRESS_BYTES = 1 << 20
"""A try that brought at least this many new bytes does not count as failed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a broken transfer is tried again.

    Attributes:
        tries: Failed tries in a row, without progress between them, after which it is given up.
        first_delay_s: Pause before the second try; doubles from try to try, with up to 50% taken off at random.
        max_delay_s: Longest pause, unless the other side asks for a longer one, which is kept within ``timeout_s``.
        connect_timeout_s: Longest wait for a connection or an answer.
        stall_timeout_s: Longest silence in the middle of a transfer.
        timeout_s: Longest time for one file, all tries together.
    """

    tries: int = 6
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    connect_timeout_s: float = 30.0
    stall_timeout_s: float = 60.0
    timeout_s: float = 86_400.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the option."""
        if self.tries < 1:
            raise ConfigurationError(f"RetryPolicy(tries={self.tries!r}): at least 1 try is needed")
        for name in ("first_delay_s", "max_delay_s"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"RetryPolicy({name}={getattr(self, name)!r}): seconds cannot be negative")
        for name in ("connect_timeout_s", "stall_timeout_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"RetryPolicy({name}={getattr(self, name)!r}): give seconds above 0")

    def delay_s(self, failures: int) -> float:
        """Return the pause after this many failures in a row."""
        full = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(failures - 1, 30))
        return full * random.uniform(0.5, 1.0)


DEFAULT_RETRY = RetryPolicy()


class Control:
    """What may end one transfer early: its deadline, or a stop from outside. Used by one thread, stopped by any."""

    def __init__(self, timeout_s: float, stop: threading.Event | None = None) -> None:
        self.stop = threading.Event() if stop is None else stop
        self.timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds until the deadline, 0 when it has passed."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Raise Refused when the deadline has passed, Stopped when the transfer is to stop."""
        if self.stop.is_set():
            raise Stopped("the transfer was stopped before it was complete")
        if self.left_s() <= 0.0:
            raise Refused(f"not complete within {self.timeout_s:g} s; give the staging method a longer timeout_s")

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the deadline allows; raises as ``check``."""
        self.stop.wait(min(seconds, self.left_s()))
        self.check()


class Tries:
    """Counts the failures of one transfer and pauses between its tries."""

    def __init__(self, policy: RetryPolicy, control: Control) -> None:
        self._policy = policy
        self._control = control
        self._failures = 0

    def failed(self, error: Dropped, progress: int = 0) -> None:
        """Pause before the next try.

        Args:
            error: Why the last try failed.
            progress: New bytes which that try has brought.

        Raises:
            Dropped: ``error``, when the tries are used up.
            Refused: the deadline passed or the transfer was stopped.
        """
        self._failures = 1 if progress >= PROGRESS_BYTES else self._failures + 1
        if self._failures >= self._policy.tries:
            raise Dropped(f"{error} (tried {self._failures} times)") from error
        delay = self._policy.delay_s(self._failures)
        if error.retry_after_s is not None:
            delay = max(delay, error.retry_after_s)
            if delay > self._control.left_s():
                raise Refused(
                    f"{error}, and asks to be left alone for {delay:.0f} s, longer than the transfer may take"
                )
        self._control.pause(delay)
