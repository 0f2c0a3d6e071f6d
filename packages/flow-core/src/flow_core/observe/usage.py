"""Usage tracking: off unless asked for; two datagrams a run, of figures without names; never waits, never fails.

It is on where ``Config(usage_tracking=True)`` or ``FLOW_TRACKING=true`` says so, and sends only where an address is
given: ``Config(usage_address="host:port")`` or ``FLOW_TRACKING_ADDRESS``. There is none by default. The datagrams are
JSON over UDP, in the clear. User, host and script are sent as digests.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Mapping
from hashlib import blake2b

_WAIT_S = 0.05  # seconds that the end of a run waits for the resolver: usage must not be felt, so it may be lost


class UsageTracker:
    """Sends the start and the end of one run. Every method returns at once and raises nothing.

    Attributes:
        active: Whether anything is sent.
    """

    def __init__(
        self,
        enabled: bool = False,
        address: str | None = None,
        *,
        version: str = "",
        script: str | None = None,
        environ: Mapping[str, str] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Decide whether to send anything.

        Args:
            enabled: The option ``usage_tracking``; the environment may switch it on, not off.
            address: ``host:port``; None means that of ``FLOW_TRACKING_ADDRESS``.
            version: Version of Flow.
            script: Path of the script; None means ``sys.argv[0]``.
            environ: The environment; None means that of the process.
            logger: Logger that reports a wrong address, once, at INFO.
        """
        environment = os.environ if environ is None else environ
        wanted = enabled or environment.get("FLOW_TRACKING", "").strip().lower() in ("true", "1", "yes")
        self._logger = logger if logger is not None else logging.getLogger("flow.usage")
        self._address = self._parse(address or environment.get("FLOW_TRACKING_ADDRESS", "")) if wanted else None
        self.active = self._address is not None
        self._version = version
        self._script = sys.argv[0] if script is None else script
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._last: dict[str, object] | None = None
        self._who: dict[str, object] = {}

    def start(self, executors: int) -> None:
        """Send the start of the run; what may ask the network (address, user) is resolved by a thread of its own."""
        if not self.active or self._thread is not None:
            return
        message = {"event": "start", "time_ns": time.time_ns(), "executors": executors}
        # Here and not on the thread: the script may change its directory meanwhile.
        script = _absolute(self._script)
        thread = threading.Thread(target=self._open, args=(message, script), name="flow-usage", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the process may have no more threads
            self._logger.debug("Usage is not sent: %s", error)
            return
        self._thread = thread

    def end(self, executors: int, tasks: int, failures: int, exit_code: int = 0) -> None:
        """Send the end of the run, once the address is resolved; not if the process ends before. Idempotent."""
        if not self.active or self._ended or self._thread is None:
            return
        self._ended = True
        message: dict[str, object] = {"event": "end", "time_ns": time.time_ns(), "executors": executors}
        message |= {"tasks": tasks, "failures": failures, "exit_code": exit_code}
        self._thread.join(_WAIT_S)
        with self._lock:
            if self._socket is not None:
                self._finish(self._socket, message)
            else:
                self._last = message

    def _about(self, script: str) -> dict[str, object]:
        return {
            "user": _anonymous(_user()),
            "host": _anonymous(platform.node()),
            "script": _anonymous(script),
            "flow": self._version,
            "python": platform.python_version(),
            "os": platform.system(),
            "os_version": platform.release(),
        }

    def _parse(self, address: str) -> tuple[str, int] | None:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal() and 0 < int(port) < 65536:
            return host.strip("[]"), int(port)
        told = f"{address!r} is not host:port" if address else "no address is given (usage_address, 'host:port')"
        self._logger.info("Usage tracking is on, but %s: nothing is sent", told)
        return None

    def _open(self, message: dict[str, object], script: str) -> None:
        assert self._address is not None
        try:
            self._who = self._about(script)
            family, kind, protocol, _, place = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            link = socket.socket(family, kind, protocol)
            # A datagram for which there is no room is dropped; a blocking send could hold up the run.
            link.setblocking(False)
            link.connect(place)
        except Exception as error:  # a resolver may raise more than OSError, and none of it may harm a run
            self._logger.debug("Usage is not sent: %s", error)
            return
        self._send(link, message)
        with self._lock:
            self._socket = link
            if self._last is not None:
                self._finish(link, self._last)

    def _finish(self, link: socket.socket, message: dict[str, object]) -> None:
        self._send(link, message)
        link.close()

    def _send(self, link: socket.socket, message: dict[str, object]) -> None:
        try:
            link.send(_encode({**self._who, **message}))
        except OSError as error:
            self._logger.debug("Usage is not sent: %s", error)


def _encode(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _anonymous(text: str) -> str:
    """Return a digest that is the same every time and from which no name can be read."""
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=10, person=b"flow-usage").hexdigest()


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # the current directory was removed
        return path


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError, ImportError):
        return f"{os.getuid()}@{platform.node()}"
