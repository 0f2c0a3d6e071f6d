"""Holds bad nodes: feeds what tasks came to into ``NodeHealth``, tells the interchange, the log and the memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from flow_executors.client.node_health_core import Hold, NodeHealth
from flow_executors.client.node_memory import KEPT_S, HeldNode, NodeMemory

# Seconds between looks at the memory, which others may have changed, and at the clock, while some node is held.
_LOOK_S = 1.0
# Nodes of which the last failure is kept in words, and characters of these.
_MOST_WORDS, _LONGEST_WORDS = 1000, 200


class NodeKeeper:
    """The nodes of one started executor. Any thread; only its own thread touches the disk after the start.

    Args:
        label: Label of the executor.
        memory: Where held nodes are remembered; None for nowhere.
        logger: The log of the run.
        tell: Tells the interchange which nodes are held, all of them. Never blocks.
    """

    def __init__(
        self, label: str, memory: NodeMemory | None, logger: logging.Logger, tell: Callable[[tuple[str, ...]], None]
    ) -> None:
        self.label = label
        self.alert = False
        """Whether short tasks that went well are to be told, too. Read without a lock: a few missed say nothing."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of what is held, without a lock."""
        self._health = NodeHealth()
        self._memory = memory
        self._logger = logger
        self._tell = tell
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._unwritten: list[HeldNode] = []
        self._until: dict[str, float] = {}
        self._last_words: dict[str, str] = {}

    def start(self) -> None:
        """Hold what earlier runs have found out."""
        if self._memory is None:
            return
        try:
            known = [one for one in self._memory.entries() if one.executor == self.label]
        except OSError as error:
            self._logger.warning("nodes that were held in earlier runs are not known: %s", error)
            self._memory = None
            return
        if not known:
            return
        for one in known:
            self._logger.warning(
                "node %s gets no tasks of %s: in an earlier run %s. Free it by: flow nodes free %s",
                one.node,
                self.label,
                one.why,
                one.node,
            )
        with self._lock:
            self._health.hold({one.node: one.why for one in known})
            self._until.update((one.node, one.until) for one in known)
            self._watch()

    def close(self) -> None:
        """End the thread; what was found out is in the memory."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    # -- what there is

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the nodes that are held."""
        with self._lock:
            return tuple(sorted(self._health.held))

    def reasons(self) -> Mapping[str, str]:
        """Return why each node is held that is."""
        with self._lock:
            return dict(self._health.held)

    def free(self, node: str) -> bool:
        """Let a node have tasks again; False if it was not held."""
        with self._lock:
            freed = self._health.free([node])
        if freed:
            self._freed(freed, "it was freed by hand")
            self._forget(freed)
        return bool(freed)

    # -- from the receiver

    def joined(self, node: str) -> None:
        """A manager of a node registered."""
        with self._lock:
            self._health.joined(node)

    def left(self, node: str) -> None:
        """A manager of a node is gone."""
        with self._lock:
            self._health.left(node)
            self.alert = self._health.alert

    def succeeded(self, node: str, app: bytes, start_ns: int, duration_ns: int) -> None:
        """A task went well."""
        with self._lock:
            hold = self._health.succeeded(node, app, start_ns, duration_ns)
            self.alert = self._health.alert
        if hold is not None:
            self._held(hold)

    def failed(self, node: str, app: bytes) -> None:
        """A task failed, or its worker died."""
        with self._lock:
            hold = self._health.failed(node, app)
            self.alert = self._health.alert
        if hold is not None:
            self._held(hold)

    def blames(self, node: str, app: bytes) -> bool:
        """Note that a node could not load an app; return whether another one may be able to."""
        with self._lock:
            return self._health.blames(node, app)

    def said(self, node: str, text: str) -> None:
        """Note how a task failed there, in one line, for the warning."""
        if len(self._last_words) > _MOST_WORDS:
            self._last_words.clear()
        self._last_words[node] = text.split("\n", 1)[0][:_LONGEST_WORDS]

    # -- how

    def _held(self, hold: Hold) -> None:
        said = self._last_words.get(hold.node)
        why = f"{hold.why} (the last one: {said})" if said else hold.why
        now = time.time()
        with self._lock:
            if hold.node not in self._health.held:
                return
            self._health.held[hold.node] = why
            self._until[hold.node] = now + KEPT_S
            self._unwritten.append(HeldNode(hold.node, self.label, why, now, now + KEPT_S))
            self._watch()
        self._logger.warning(
            "node %s gets no more tasks of %s: %s. Free it by: flow nodes free %s",
            hold.node,
            self.label,
            why,
            hold.node,
        )
        self._changed()

    def _freed(self, nodes: list[str], why: str) -> None:
        for node in nodes:
            self._logger.warning("node %s gets tasks of %s again: %s", node, self.label, why)
        self._changed()

    def _changed(self) -> None:
        self._tell(self.held)
        self.on_change()

    def _watch(self) -> None:
        """Have the thread run while something is held. Under the lock."""
        self._wake.set()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name=f"flow-{self.label}-nodes", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        stamp = self._memory.stamp() if self._memory is not None else (0, 0)
        while True:
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            wrote = self._write()
            with self._lock:
                if self._closed or not (self._health.held or self._unwritten):
                    self._thread = None
                    return
                alone = self._health.tick(time.monotonic())
                expired = self._health.free([node for node, until in self._until.items() if until < time.time()])
                for node in (*alone, *expired):
                    self._until.pop(node, None)
            if alone:
                self._freed(alone, "no other node is there")
            if expired:
                self._freed(expired, f"it was held for {KEPT_S / 3600:g} h")
            if self._memory is not None and (found := self._memory.stamp()) != stamp:
                stamp = found
                if not wrote:
                    self._look()

    def _write(self) -> bool:
        """Write what was found out; True if that has changed the memory."""
        with self._lock:
            entries, self._unwritten = self._unwritten, []
        if self._memory is None:
            return False
        try:
            for entry in entries:
                self._memory.add(entry)
        except OSError as error:
            self._logger.warning("held nodes are not remembered for other runs: %s", error)
            self._memory = None
        return bool(entries)

    def _look(self) -> None:
        """Free what somebody else has taken out of the memory."""
        if self._memory is None:
            return
        try:
            known = {one.node for one in self._memory.entries() if one.executor == self.label}
        except OSError:
            return
        with self._lock:
            written = {one.node for one in self._unwritten}
            freed = self._health.free([node for node in self._health.held if node not in known | written])
        if freed:
            self._freed(freed, "it was freed by hand")

    def _forget(self, nodes: list[str]) -> None:
        try:
            if self._memory is not None:
                self._memory.remove(nodes, self.label)
        except OSError as error:
            self._logger.warning("held nodes are still remembered for other runs: %s", error)
