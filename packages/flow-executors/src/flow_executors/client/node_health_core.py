"""Which nodes fail what others run, or are far slower, and are to get no more tasks. Pure: no clock, no I/O.

An app is the digest of a function. A node is only ever compared with other nodes that ran the same apps at the same
time: what fails everywhere is the app's, and what is long everywhere is long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STREAK = 10
"""Failures of a node, one after the other, after which it is compared with others."""
SLOWER = 10.0
"""Times that a node takes of what its peers take for the same app."""
LONG_NS = 20_000_000
"""Nanoseconds of a task from which on its time says something of its node. Shorter ones are not compared."""
ALONE_S = 10.0
"""Seconds without any node that is not held, after which all are free: they are better than none."""
# Results of an app on other nodes that show it to be well there: successes, and failures among ten of them.
_WELL, _FAILING_OF_TEN = 3, 1
# The same where all failures are of one app, of which some calls may just be wrong.
_WELL_ALONE = 5
# Tasks of a node that are each slower than nearly all (this share) of so many of its peers, begun since.
_SLOW_TASKS, _SHARE, _PEERS = 8, 0.9, 20
# Tasks of an app whose times are remembered, apps, and nodes that could not load one: after so many, with no success
# anywhere, it is the app.
_REMEMBERED, _APPS, _NOT_THE_NODE = 256, 256, 3
# Tasks of an app after which its quick ones are looked at again.
_LOOK_EVERY = 32

App = bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """A node is to get no more tasks: which, and why."""

    node: str
    why: str


class _AppRecord:
    """What is known of one app.

    Attributes:
        succeeded: Successes by node, since somebody failed.
        failed: Failures by node.
        unloaded: Nodes that could not load it.
        times: (start, duration, node) of its last long tasks.
        quick: A duration that one in ten of these was below, where last looked.
        looks: Long tasks so far.
    """

    __slots__ = ("failed", "looks", "quick", "succeeded", "times", "unloaded")

    def __init__(self) -> None:
        self.succeeded: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.unloaded: set[str] = set()
        self.times: deque[tuple[int, int, str]] = deque(maxlen=_REMEMBERED)
        self.quick = 0
        self.looks = 0

    def took(self, start_ns: int, duration_ns: int, node: str) -> bool:
        """Take the time of a long task; return whether it may be far slower than others, by a quick look."""
        self.times.append((start_ns, duration_ns, node))
        self.looks += 1
        # Rarely: all tasks of a large machine come here.
        if not self.looks % _LOOK_EVERY:
            self.quick = sorted(duration for _, duration, _ in self.times)[len(self.times) // 10]
        return bool(self.quick) and duration_ns >= SLOWER * self.quick


class NodeHealth:
    """Nodes of one executor, and which of them are held. One thread, or several under one lock.

    Attributes:
        held: Reasons by node.
        alert: Whether short tasks that went well are to be told, too: a node has failed something.
    """

    __slots__ = ("_alone_since", "_apps", "_managers", "_streaks", "alert", "held")

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.alert = False
        self._managers: dict[str, int] = {}
        self._streaks: dict[str, deque[App]] = {}
        self._apps: OrderedDict[App, _AppRecord] = OrderedDict()
        self._alone_since: float | None = None

    # -- what there is

    @property
    def nodes(self) -> Mapping[str, int]:
        """Managers that are connected, by node."""
        return self._managers

    def joined(self, node: str) -> None:
        """A manager of a node registered."""
        self._managers[node] = self._managers.get(node, 0) + 1

    def left(self, node: str) -> None:
        """A manager of a node is gone."""
        count = self._managers.get(node, 0) - 1
        if count > 0:
            self._managers[node] = count
        else:
            self._managers.pop(node, None)
            self._streaks.pop(node, None)
            self.alert = bool(self._streaks)

    def hold(self, nodes: Mapping[str, str]) -> None:
        """Hold nodes that were found out before, with the reasons."""
        self.held.update(nodes)

    def free(self, nodes: Iterable[str]) -> list[str]:
        """Let nodes have tasks again, whatever they did; return those that were held."""
        found = [node for node in nodes if self.held.pop(node, None) is not None]
        for node in found:
            self._streaks.pop(node, None)
            for record in self._apps.values():
                record.failed.pop(node, None)
                record.unloaded.discard(node)
                record.times = deque((one for one in record.times if one[2] != node), maxlen=_REMEMBERED)
        self.alert = bool(self._streaks)
        return found

    def tick(self, now: float) -> list[str]:
        """Free all nodes if nothing else has been there for a while; return them."""
        if not self.held or not self._managers or any(node not in self.held for node in self._managers):
            self._alone_since = None
            return []
        if self._alone_since is None:
            self._alone_since = now
        if now - self._alone_since < ALONE_S:
            return []
        self._alone_since = None
        return self.free([*self.held])

    # -- what happens

    def succeeded(self, node: str, app: App, start_ns: int, duration_ns: int) -> Hold | None:
        """A task went well. To be called for tasks of ``LONG_NS`` and more, and for all while ``alert``."""
        if self.alert:
            record = self._record(app)
            record.succeeded[node] = record.succeeded.get(node, 0) + 1
            record.unloaded.discard(node)
            self._streaks.pop(node, None)
            self.alert = bool(self._streaks)
            # A node may have failed all that there was before it was known that others run it.
            for other, streak in self._streaks.items():
                if app in streak and (hold := self._judged(other, streak)) is not None:
                    return hold
        if duration_ns < LONG_NS or node in self.held:
            return None
        record = self._record(app)
        why = self._slow(node, record.times) if record.took(start_ns, duration_ns, node) else ""
        return self._held(node, why) if why else None

    def failed(self, node: str, app: App) -> Hold | None:
        """A task failed, or its worker died."""
        record = self._record(app)
        record.failed[node] = record.failed.get(node, 0) + 1
        self.alert = True
        streak = self._streaks.setdefault(node, deque(maxlen=STREAK))
        streak.append(app)
        return self._judged(node, streak)

    def blames(self, node: str, app: App) -> bool:
        """Note that a node could not load an app; return whether another one may be able to."""
        record = self._record(app)
        record.unloaded.add(node)
        others = [one for one in self._managers if one not in record.unloaded and one not in self.held]
        if not others:
            return False
        return len(record.unloaded) < _NOT_THE_NODE or any(count for count in record.succeeded.values())

    # -- how

    def _judged(self, node: str, streak: deque[App]) -> Hold | None:
        """Hold a node if its last tasks failed that go well on others."""
        if node in self.held or len(streak) < STREAK:
            return None
        apps = set(streak)
        well = [self._is_well_elsewhere(node, one, len(apps) == 1) for one in apps]
        # Of each app it must be known, or not be known at all, and of one at least, that it works elsewhere.
        if False in well or True not in well:
            return None
        what = "of one app" if len(apps) == 1 else f"of {len(apps)} apps"
        return self._held(node, f"its last {STREAK} tasks, {what}, failed, while other nodes run the same")

    def _held(self, node: str, why: str) -> Hold | None:
        # Never more than half of the nodes, and so never the only one: then it is not the nodes.
        held = sum(one in self.held for one in self._managers)
        if node not in self._managers or 2 * (held + 1) > len(self._managers):
            return None
        self.held[node] = why
        return Hold(node, why)

    def _is_well_elsewhere(self, node: str, app: App, alone: bool) -> bool | None:
        """Return whether an app works on other nodes; None where they have not run it."""
        record = self._record(app)
        good = sum(count for one, count in record.succeeded.items() if one != node)
        bad = sum(count for one, count in record.failed.items() if one != node)
        if bad * 10 > (good + bad) * _FAILING_OF_TEN and bad:
            return False
        if not good:
            return None
        return True if good >= (_WELL_ALONE if alone else _WELL) else None

    def _slow(self, node: str, times: deque[tuple[int, int, str]]) -> str:
        if len(times) < _SLOW_TASKS + _PEERS:
            return ""
        own = [(start, duration) for start, duration, one in times if one == node][-_SLOW_TASKS:]
        if len(own) < _SLOW_TASKS:
            return ""
        least, since = min(duration for _, duration in own), min(start for start, _ in own)
        # Only what began no earlier: else the peers' easy work would be compared with the hard work of later.
        peers = sorted(duration for start, duration, one in times if one != node and start >= since)
        if len(peers) < _PEERS:
            return ""
        most = peers[int(_SHARE * len(peers))]
        if least < SLOWER * most:
            return ""
        return (
            f"each of its last {_SLOW_TASKS} tasks of an app took {least * 1e-9:.3g} s or more, while other nodes take "
            f"{most * 1e-9:.3g} s"
        )

    def _record(self, app: App) -> _AppRecord:
        record = self._apps.get(app)
        if record is None:
            record = self._apps[app] = _AppRecord()
            if len(self._apps) > _APPS:
                self._apps.popitem(last=False)
        else:
            self._apps.move_to_end(app)
        return record
