"""Use of resources by tasks over time: sums by bins of time that grow with the run. Pure.

A try's use is known in pieces: between two samples, between its start and the first sample, between the last and its
end, where its worker reports the CPU time of the whole. Over each piece it is taken to be even. So the sum over time is
the CPU time that workers reported, also of tries that are shorter than the interval of samples, and no moment shows
more than the tries that ran at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MOST_BINS = 600
"""Bins of a group at most, from the first to the last: pages show 200. Beyond it they are made wider."""
MOST_SUMS = 8000
"""Sums of all groups of one grouping at most, which bounds the rows of a run; beyond it bins are made wider, too."""
_FIRST_WIDTH = (
    1 << 26
)  # ns, about 67 ms: a power of two, so that bins are found by a mask and two of them make the next width
_FIRST_MASK = _FIRST_WIDTH - 1
_SHORTEST_NS = 1_000_000
"""Nanoseconds over which a use without duration is spread: CPU time over no time would be without end."""
GROUPINGS: Final = ("app", "node", "block")

Key = tuple[str, int]
Groups = tuple[str, str, str]
"""Names of an app, a node and a block."""
Sums = list[float]
"""Changes of cores, bytes and processes within a bin; then each times how far (ns) from the bin's begin."""


@dataclass(slots=True)
class Series:
    """Use by group and bin, as changes: what begins adds, what ends subtracts, wherever it does.

    With the changes and their distances from the bin's begin the mean of a bin is known exactly, however wide it is,
    and a piece costs the same however long it is.

    Attributes:
        width: Width of a bin in nanoseconds, a power of two; bins begin at its multiples.
        bins: By group and begin.
        changed: Keys changed since the last ``take``.
        anew: Whether all bins were made anew since then.
    """

    width: int = _FIRST_WIDTH
    bins: dict[Key, Sums] = field(default_factory=dict)
    changed: set[Key] = field(default_factory=set)
    anew: bool = False

    def merge(self, group: str, begin: int, more: Sums) -> None:
        """Add sums of a bin that is as wide as ours or narrower."""
        shift = begin & (self.width - 1)
        key = (group, begin - shift)
        self.changed.add(key)
        sums = self.bins.get(key)
        if sums is None:
            sums = self.bins[key] = [0.0] * 6
        _merge(sums, more, shift)

    def take(self) -> tuple[bool, dict[Key, Sums]]:
        """Return whether all sums are replaced, and those that changed."""
        if self.changed and self.width < 1 << 60:
            # Looked at once a batch, not for each try.
            begins = {begin for _, begin in self.bins}
            first, last = min(begins), max(begins)
            while (last - first) // self.width >= MOST_BINS or len(self.bins) > MOST_SUMS:
                self._widen()
        anew, keys = self.anew, self.bins.keys() if self.anew else self.changed
        rows = {key: self.bins[key] for key in keys}
        self.changed, self.anew = set(), False
        return anew, rows

    def _widen(self) -> None:
        """Double the width of the bins: each two of the old make one, and all rows of the grouping are written anew."""
        narrow, self.bins, self.anew = self.bins, {}, True
        width, self.width = self.width, 2 * self.width
        for (group, begin), old in narrow.items():
            shift = begin & width
            _merge(self.bins.setdefault((group, begin - shift), [0.0] * 6), old, shift)


def _merge(sums: Sums, more: Sums, shift: int) -> None:
    """Add sums of a bin to those of a wider one that begins so much earlier."""
    for at in range(3):
        sums[at] += more[at]
        sums[at + 3] += more[at + 3] + shift * more[at]


def means(rows: Sequence[tuple[int, Sequence[float]]], first: int, width: int, count: int) -> list[list[float]]:
    """Return the mean cores, bytes and processes of each of so many bins from a time on, of the changes of one group.

    Args:
        rows: Begins of narrower bins, which divide the others, and their sums.
        first: Begin of the first bin in nanoseconds.
        width: Of a bin.
        count: Of bins.
    """
    change, area = ([[0.0] * 3 for _ in range(count)] for _ in range(2))
    for begin, sums in rows:
        at = (begin - first) // width
        to_end = first + (at + 1) * width - begin
        for which in range(3):
            change[at][which] += sums[which]
            area[at][which] += sums[which] * to_end - sums[which + 3]
    level, out = [0.0] * 3, []
    for at in range(count):
        out.append([_clean(level[which] + area[at][which] / width) for which in range(3)])
        level = [level[which] + change[at][which] for which in range(3)]
    return out


def _clean(value: float) -> float:
    """Return a sum without what rounding left of things that have ended."""
    return value if value > 1e-7 else 0.0


@dataclass(slots=True)
class Live:
    """Use of a try that has not ended. Times in ns, CPU in seconds since its first sample."""

    start_ns: int
    groups: Groups
    first_ns: int = 0
    last_ns: int = 0
    cpu_s: float = 0.0
    memory: float = 0.0
    processes: float = 1.0
    elsewhere: dict[str, Live] = field(default_factory=dict)
    """What it uses on other nodes, by their names: a task of ranks has several."""


@dataclass(slots=True)
class UseOverTime:
    """The series of all groupings, and the tries that go on.

    What is added waits by the names of all groupings at once until ``settle``: most tries of a batch share them.
    """

    waiting: dict[tuple[Groups, int], Sums] = field(default_factory=dict)
    series: tuple[Series, Series, Series] = field(default_factory=lambda: (Series(), Series(), Series()))
    live: dict[tuple[int, int], Live] = field(default_factory=dict)

    def started(self, key: tuple[int, int], time_ns: int, groups: Groups) -> None:
        """Take the start of a try; ``groups`` are the names of its app, its node and its block."""
        live = self.live.get(key)
        if live is None:
            self.live[key] = Live(time_ns, groups)
        else:
            # A start can come after the first sample, or with a time of another clock.
            live.start_ns = min(live.start_ns, time_ns)

    def sampled(
        self,
        key: tuple[int, int],
        time_ns: int,
        groups: Groups,
        cpu_s: float,
        memory: int,
        processes: int,
    ) -> None:
        """Take a sample of a try that goes on: CPU seconds since its first sample, bytes, number of processes."""
        live = self.live.get(key)
        if live is None:
            live = self.live[key] = Live(time_ns, groups)
        elif live.groups[1] != groups[1] and live.groups[1]:
            live = live.elsewhere.setdefault(groups[1], Live(time_ns, groups))
        if not live.first_ns:
            live.first_ns = time_ns
            if time_ns > live.start_ns:
                # CPU counts from the first sample on: what was used before it is known only at the end of the try.
                self._add(live.groups, live.start_ns, time_ns, 0.0, memory, processes)
        elif time_ns > live.last_ns:
            # A tree of processes may shrink, and its CPU with it; what was counted stays.
            cpu = max(0.0, cpu_s - live.cpu_s)
            self._add(
                live.groups, live.last_ns, time_ns, cpu, (live.memory + memory) / 2, (live.processes + processes) / 2
            )
        else:
            return
        live.last_ns, live.cpu_s = time_ns, max(live.cpu_s, cpu_s)
        live.memory, live.processes = memory, processes

    def ended(
        self,
        key: tuple[int, int],
        start_ns: int,
        end_ns: int,
        groups: Groups,
        cpu_s: float | None,
        most_memory: int,
    ) -> None:
        """Take the end of a try: when it began (0 where not known), and what it used in all where that is known."""
        live = self.live.pop(key, None) if self.live else None
        if live is None or not live.first_ns:
            begin = start_ns or (0 if live is None else live.start_ns)
            if begin and cpu_s is not None:
                self._add(groups if live is None else live.groups, begin, end_ns, cpu_s, most_memory, 1)
            return
        # The worker knows the start better than the time at which it was reported.
        if start_ns and start_ns < live.start_ns:
            self._add(live.groups, start_ns, live.start_ns, 0.0, live.memory, live.processes)
            live.start_ns = start_ns
        # what no sample saw: before the first one, from which samples count, and after the last one
        before, after = max(0, live.first_ns - live.start_ns), max(0, end_ns - live.last_ns)
        missing = max(0.0, (cpu_s or 0.0) - live.cpu_s)
        # By length: nothing else is known of when it was used.
        share = before / (before + after) if before + after else 0.0
        if before:
            self._add(live.groups, live.start_ns, live.first_ns, missing * share, 0, 0)
        if after or missing:
            self._add(live.groups, live.last_ns, end_ns, missing * (1 - share), live.memory, live.processes)

    def settle(self) -> None:
        """Bring what was added into the series."""
        waiting, self.waiting = self.waiting, {}
        for (groups, begin), sums in waiting.items():
            for series, group in zip(self.series, groups, strict=True):
                series.merge(group, begin, sums)

    def _add(self, groups: Groups, begin: int, end: int, cpu_s: float, memory: float, processes: float) -> None:
        """Add what is used from one time to another: CPU seconds in all, the rest on the mean."""
        length = end - begin
        if length < _SHORTEST_NS:
            length = _SHORTEST_NS
            end = begin + length
        from_begin, from_end = begin & _FIRST_MASK, end & _FIRST_MASK
        if from_begin + length == from_end:  # both changes are in one bin: they add up to none
            # Most tries are shorter than a bin: one entry instead of two.
            key = (groups, begin - from_begin)
            sums = self.waiting.get(key) or self._sums(groups, begin - from_begin)
            sums[3] -= cpu_s * 1e9
            sums[4] -= memory * length
            sums[5] -= processes * length
            return
        cores = cpu_s * 1e9 / length
        sums = self._sums(groups, begin - from_begin)
        sums[0] += cores
        sums[1] += memory
        sums[2] += processes
        sums[3] += cores * from_begin
        sums[4] += memory * from_begin
        sums[5] += processes * from_begin
        sums = self._sums(groups, end - from_end)
        sums[0] -= cores
        sums[1] -= memory
        sums[2] -= processes
        sums[3] -= cores * from_end
        sums[4] -= memory * from_end
        sums[5] -= processes * from_end

    def _sums(self, groups: Groups, begin: int) -> Sums:
        key = (groups, begin)
        sums = self.waiting.get(key)
        if sums is None:
            sums = self.waiting[key] = [0.0] * 6
        return sums
