"""Retries of transfers: how often, after which pauses, until which deadline, and above which speed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flow_core.errors import ConfigurationError
from flow_core.interfaces.staging import FailedTry
from flow_core.without_effect import warn_of
from flow_staging.transfer.failures import PermanentTransferError, TooSlow, TransferCancelled, TransientTransferError
from flow_staging.transfer.handle import Handle

T = TypeVar("T")

_USUAL_FIRST_S = 0.5
_USUAL_LONGEST_S = 30.0
_USUAL_WINDOW_S = 300.0
PROGRESS_BYTES = 1 << 20
"""A try that brought at least this many new bytes does not count as failed, unless it was too slow."""


def _warn_of_window(who: str, limit: SpeedLimit) -> None:
    window_s = limit.least_speed_window_s
    if not limit.least_speed and window_s != _USUAL_WINDOW_S:
        warn_of(who, [f"least_speed_window_s={window_s!r} has no effect with least_speed=0: any speed is well"])


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Policy of retries: when a broken transfer is tried again.

    Attributes:
        tries: Failed tries in a row, without progress between them, after which it is given up.
        first_delay_s: Pause before the second try; doubles from try to try, with up to 50% taken off at random.
        max_delay_s: Longest pause, unless the other side asks for a longer one, which is kept within ``timeout_s``.
        connect_timeout_s: Longest wait for a connection or an answer.
        stall_timeout_s: Longest silence in the middle of a transfer.
        timeout_s: Longest time for one file, all tries together.
        least_speed: Bytes a second below which a connection is given up and the transfer tried again from where it is;
            0 for any speed.
        least_speed_window_s: The time over which that is measured, in seconds.
    """

    tries: int = 6
    first_delay_s: float = _USUAL_FIRST_S
    max_delay_s: float = _USUAL_LONGEST_S
    connect_timeout_s: float = 30.0
    stall_timeout_s: float = 60.0
    timeout_s: float = 86_400.0
    least_speed: float = 100.0
    least_speed_window_s: float = _USUAL_WINDOW_S

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the option."""
        if self.tries < 1:
            raise ConfigurationError(f"RetryPolicy(tries={self.tries!r}): at least 1 try is needed")
        for name in ("first_delay_s", "max_delay_s"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"RetryPolicy({name}={getattr(self, name)!r}): seconds cannot be negative")
        if self.least_speed < 0:
            raise ConfigurationError(
                f"RetryPolicy(least_speed={self.least_speed!r}): give bytes a second, 0 for any speed"
            )
        for name in ("connect_timeout_s", "stall_timeout_s", "timeout_s", "least_speed_window_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"RetryPolicy({name}={getattr(self, name)!r}): give seconds above 0")
        _warn_of_window("RetryPolicy", self)
        if self.tries == 1:
            usual = {"first_delay_s": _USUAL_FIRST_S, "max_delay_s": _USUAL_LONGEST_S}
            given = [name for name, value in usual.items() if getattr(self, name) != value]
            warn_of("RetryPolicy", (f"{name} has no effect with tries=1: there is no second try" for name in given))

    def delay_s(self, failures: int) -> float:
        """Return the pause after this many failures in a row."""
        full = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(failures - 1, 30))
        # Many transfers break at once when a server restarts: they must not come back at once.
        return full * random.uniform(0.5, 1.0)


DEFAULT_RETRY = RetryPolicy()


class Control:
    """Control of one transfer: its deadline, and a stop from outside. Used by one thread, stopped by any.

    Attributes:
        run: Names the use of the method, until it is closed, that the transfer belongs to; transfers of one use share
            files whose versions have no names. Empty: nothing is shared so.
    """

    def __init__(self, timeout_s: float, stop: Handle | None = None, run: str = "") -> None:
        self.run = run
        self.stop = Handle() if stop is None else stop
        self.timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds until the deadline, 0 when it has passed."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Raise PermanentTransferError when the deadline has passed, TransferCancelled when the transfer is to stop."""
        if self.stop.is_set():
            raise TransferCancelled("the transfer was stopped before it was complete")
        if self.left_s() <= 0.0:
            far = self.stop.meter.progress()
            raise PermanentTransferError(
                f"not complete within {self.timeout_s:g} s ({far}); give the staging method a longer timeout_s"
            )

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the deadline allows; raises as ``check``."""
        # Another transfer may have the thread's turn while this one only waits.
        with self.stop.resting():
            self.stop.wait(min(seconds, self.left_s()))
        self.check()


class SpeedLimit(Protocol):
    """The least speed of a connection, and the time over which it is measured: a RetryPolicy, say."""

    @property
    def least_speed(self) -> float:
        """Return bytes a second, 0 for any speed."""
        ...

    @property
    def least_speed_window_s(self) -> float:
        """Return the seconds over which the speed is measured; above 0."""
        ...


@dataclass(frozen=True, slots=True)
class LeastSpeed:
    """Speed limit of a method without retries; options as of RetryPolicy. ``who`` is the method's name in messages."""

    who: str
    least_speed: float
    least_speed_window_s: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the option."""
        if self.least_speed < 0:
            raise ConfigurationError(
                f"{self.who}(least_speed={self.least_speed!r}): give bytes a second, 0 for any speed"
            )
        if self.least_speed_window_s <= 0:
            raise ConfigurationError(
                f"{self.who}(least_speed_window_s={self.least_speed_window_s!r}): give seconds above 0"
            )
        _warn_of_window(self.who, self)


class Pace:
    """Gives a connection up that is too slow. Of one connection and one thread.

    It looks only when bytes have come, at the time that they took: silence is what ``stall_timeout_s`` is for.
    """

    def __init__(self, policy: SpeedLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._moved = 0
        self._began = clock()

    def add(self, count: int) -> None:
        """Note bytes that have come or gone; raises TooSlow."""
        self._moved += count
        passed_s = self._clock() - self._began
        if passed_s < self._policy.least_speed_window_s:
            return
        speed = self._moved / passed_s
        if speed < self._policy.least_speed:
            raise TooSlow(
                f"too slow: {speed:.3g} bytes/s over {passed_s:.0f} s, where least_speed="
                f"{self._policy.least_speed:g}, least_speed_window_s={self._policy.least_speed_window_s:g} asks for "
                "more; lower them, or least_speed=0 takes any speed"
            )
        self._moved = 0
        self._began += passed_s


def again(policy: RetryPolicy, control: Control, work: Callable[[], T]) -> T:
    """Do something until it is done, and return what it returns.

    Raises:
        TransientTransferError: its tries are used up.
        PermanentTransferError: it was refused, the deadline passed, or the transfer is to stop.
    """
    tries = Tries(policy, control)
    while True:
        control.check()
        try:
            return work()
        except TransientTransferError as error:
            tries.failed(error)


class Tries:
    """Counts the failures of one transfer and pauses between its tries."""

    def __init__(self, policy: RetryPolicy, control: Control) -> None:
        self._policy = policy
        self._control = control
        self._failures = 0

    def failed(self, error: TransientTransferError, progress: int = 0) -> None:
        """Pause before the next try.

        Args:
            error: Why the last try failed.
            progress: New bytes which that try has brought.

        Raises:
            TransientTransferError: ``error``, when the tries are used up.
            PermanentTransferError: the deadline passed or the transfer was stopped.
        """
        # A slow connection brings bytes as well: it must count, or a server of a byte a second holds a task for ever.
        forgiven = progress >= PROGRESS_BYTES and not isinstance(error, TooSlow)
        self._failures = 1 if forgiven else self._failures + 1
        if self._failures >= self._policy.tries:
            raise TransientTransferError(f"{error} (tried {self._failures} times)") from error
        delay = self._policy.delay_s(self._failures)
        if error.retry_after_s is not None:
            delay = max(delay, error.retry_after_s)
            # Failing at once tells why; waiting until the deadline would only tell that it passed.
            if delay > self._control.left_s():
                raise PermanentTransferError(
                    f"{error}, and asks to be left alone for {delay:.0f} s, longer than the transfer may take"
                )
        again_ns = time.time_ns() + int(delay * 1e9)
        self._control.stop.meter.failed = FailedTry(str(error), self._failures, self._policy.tries, again_ns)
        self._control.pause(delay)
