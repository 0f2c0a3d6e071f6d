"""FlowControl, FlowNoControl and Timer: when a strategy, or a callback of the script's, is called."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flow.dataflow.strategy import Strategy
from flow_core.errors import ConfigurationError
from flow_core.guard import pass_signal, to_log
from flow_core.kernel.kernel import DataFlowKernel

_log = logging.getLogger("flow.control")
_CLOSE_S = 10.0  # seconds for a callback that is under way to end


class Timer:
    """Calls something every ``interval`` seconds, on a thread of its own, until it is closed.

    A call that raises is logged, and the next one comes in its time.

    Args:
        callback: What is called.
        *args: Its arguments.
        interval: Seconds between calls.
        name: Name of the thread.

    Raises:
        ConfigurationError: the callback cannot be called, or the interval is no number above 0.
    """

    def __init__(
        self, callback: Callable[..., object], *args: object, interval: float = 5, name: str | None = None
    ) -> None:
        if not callable(callback):
            raise ConfigurationError(f"{type(self).__name__}: {callback!r} cannot be called")
        if not isinstance(interval, int | float) or not 0 < interval < threading.TIMEOUT_MAX:
            raise ConfigurationError(f"{type(self).__name__}: interval={interval!r} must be seconds, above 0")
        self.interval = interval
        self._callback = callback
        self._args = args
        self._changed = threading.Condition()
        self._events = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name or f"flow-timer-{id(self)}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Call nothing more; wait for a call that is under way, not for long. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _due(self) -> bool:
        """Return whether it is time before the interval is over. The caller holds the lock."""
        return False

    def _run(self) -> None:
        while True:
            until = time.monotonic() + self.interval
            with self._changed:
                while not self._closed and not self._due() and (left_s := until - time.monotonic()) > 0:
                    self._changed.wait(left_s)
                if self._closed:
                    return
                self._events = 0
            try:
                self._callback(*self._args)
            except BaseException as error:
                pass_signal(error)
                _log.warning("the callback of %s failed", self._thread.name, exc_info=to_log(error))


class FlowControl(Timer):
    """Has a run's blocks looked at when ``threshold`` events came, or ``interval`` seconds have passed.

    So never later than that, also in bursts. What is done then is ``Strategy(dfk).strategize``.

    Args:
        dfk: The kernel.
        *args: Arguments of the strategy's call; it has no use for them.
        threshold: Events after which the look does not wait for the interval.
        interval: Seconds between looks at most.

    Raises:
        ConfigurationError: threshold or interval is no number above 0.
    """

    def __init__(self, dfk: DataFlowKernel, *args: object, threshold: int = 20, interval: float = 5) -> None:
        if not isinstance(threshold, int) or threshold < 1:
            raise ConfigurationError(f"FlowControl: threshold={threshold!r} must be a whole number, at least 1")
        self.dfk = dfk
        self.threshold = threshold
        self.strategy = Strategy(dfk)
        super().__init__(self.strategy.strategize, *args, interval=interval, name="flow-control")

    def notify(self, event_id: object = None) -> None:
        """Count an event, such as a task that was submitted or has ended. Any thread; never blocks for long."""
        with self._changed:
            self._events += 1
            if self._due():
                self._changed.notify_all()

    def _due(self) -> bool:
        return self._events >= self.threshold


class FlowNoControl:
    """Has the face of a FlowControl, and does nothing."""

    def __init__(self, dfk: DataFlowKernel, *args: object, threshold: int = 2, interval: float = 2) -> None:
        self.dfk = dfk
        self.threshold = threshold
        self.interval = interval

    def notify(self, event_id: object = None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
