"""Compares where managers say that they run with the nodes of their jobs, as the scheduler tells them. Pure.

A manager with a block's key on a host that is none of its job's may be a thief's. Schedulers may call a node otherwise
than it calls itself (pods, machines of clouds): so nothing is said before one manager of the executor has shown that
both use the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

_MOST = 10_000  # managers of which it is remembered that they were not where they should be, or may not be


class Joined(NamedTuple):
    """A manager that joined.

    Attributes:
        block: Its block.
        name: Its name.
        node: Where it says that it runs.
        address: Where its connection comes from; empty where that is this machine.
    """

    block: str
    name: str
    node: str
    address: str


@dataclass(slots=True)
class JobHosts:
    """The managers of one executor that are not yet compared with the nodes of their jobs."""

    _waiting: dict[str, list[Joined]] = field(default_factory=dict)
    _doubtful: list[tuple[Joined, tuple[str, ...]]] = field(default_factory=list)
    _same_names: bool = False

    def joined(self, manager: Joined) -> None:
        """Note a manager; the nodes of its job need not be known yet."""
        waiting = self._waiting.setdefault(manager.block, [])
        if len(waiting) < _MOST:
            waiting.append(manager)

    def forget(self, block: str) -> None:
        """A block has ended: managers that were not compared by then will not be."""
        self._waiting.pop(block, None)

    def elsewhere(self, block: str, nodes: tuple[str, ...]) -> list[tuple[Joined, tuple[str, ...]]]:
        """Compare the managers of a block with the nodes of its job.

        Args:
            block: The block.
            nodes: Its nodes; empty as long as they are not known.

        Returns:
            Managers, of any block, that are on none of their job's nodes, each once and with these.
        """
        managers = self._waiting.pop(block, []) if nodes else []
        if not managers:
            return []
        names = {_short(node) for node in nodes}
        there = [one for one in managers if _short(one.node) not in names]
        self._same_names = self._same_names or len(there) < len(managers)
        found = [*self._doubtful, *((one, nodes) for one in there)]
        self._doubtful = [] if self._same_names else found[:_MOST]
        return found if self._same_names else []


def _short(node: str) -> str:
    """Return the name of a node without its domain; an address as it is."""
    head, _, _ = node.lower().partition(".")
    return node.lower() if head.isdecimal() or ":" in node else head
