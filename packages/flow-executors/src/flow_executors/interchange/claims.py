"""Claims of managers after a restart: the tasks that they hold and this interchange has not given them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from flow_executors.interchange.managers import ManagerRecord

REASON = "two managers say that they hold it since the interchange was replaced, and neither is believed"


class Claims:
    """Claims after a restart, until no manager can claim any more. A task that two claim belongs to neither.

    Args:
        lasts_s: Seconds after the first claim in which others may come; then the client has given up the rest.
    """

    __slots__ = ("_by", "_lasts_s", "_until")

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._until = 0.0
        self._by: dict[int, ManagerRecord] = {}

    def take(
        self, manager: ManagerRecord, held: Iterable[int], now: float
    ) -> tuple[list[int], dict[int, ManagerRecord]]:
        """Return the keys that are the manager's now, and those that another one has claimed, with that one."""
        # The client has given up by now what nobody claimed: older claims contest nothing any more.
        if now >= self._until:
            self._by.clear()
            self._until = now + self._lasts_s
        granted, contested = [], {}
        for key in held:
            other = self._by.setdefault(key, manager)
            if other is manager:
                granted.append(key)
            else:
                contested[key] = other
        return granted, contested
