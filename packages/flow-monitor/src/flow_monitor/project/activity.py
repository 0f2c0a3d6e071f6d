"""Activity of apps: starts and ends of tries, summed by bins of time that grow with the run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_BINS = 4000
"""Sums kept at most, over all apps: bounds the rows of a run; beyond it bins are made wider."""
_FIRST_WIDTH = 1 << 26  # ns, about 67 ms: a power of two, so that a bin is found by a mask


@dataclass(slots=True)
class Activity:
    """Starts and ends by app and bin, each with the sum of their distances from the bin's begin.

    With those the mean number of tries that ran in a bin is known exactly, however wide it is.

    Attributes:
        width: Width of a bin in nanoseconds, a power of two; bins begin at its multiples.
        bins: ``(app, begin) -> [started, ended, sum of start offsets, sum of end offsets]``.
        changed: Keys changed since the last ``take``.
        anew: Whether all bins were made anew since then.
    """

    width: int = _FIRST_WIDTH
    bins: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    changed: set[tuple[str, int]] = field(default_factory=set)
    anew: bool = False

    def began(self, app: str, time_ns: int) -> None:
        """Count the start of a try at a time in nanoseconds."""
        self._note(app, time_ns, 0)

    def ended(self, app: str, time_ns: int) -> None:
        """Count the end of a try that was counted as started."""
        self._note(app, time_ns, 1)

    def ran(self, app: str, began_ns: int, ended_ns: int) -> None:
        """Count the start and the end of a try: most are in one bin."""
        mask = self.width - 1
        offset, end_offset = began_ns & mask, ended_ns & mask
        begin = began_ns - offset
        # Across two bins: the usual two steps.
        if begin != ended_ns - end_offset:
            self._note(app, began_ns, 0)
            self._note(app, ended_ns, 1)
            return
        key = (app, begin)
        found = self.bins.get(key)
        if found is None:
            found = self.bins[key] = [0, 0, 0, 0]
        found[0] += 1
        found[1] += 1
        found[2] += offset
        found[3] += end_offset
        self.changed.add(key)

    def _note(self, app: str, time_ns: int, which: int) -> None:
        offset = time_ns & (self.width - 1)
        key = (app, time_ns - offset)
        found = self.bins.get(key)
        if found is None:
            found = self.bins[key] = [0, 0, 0, 0]
        found[which] += 1
        found[which + 2] += offset
        self.changed.add(key)

    def take(self) -> tuple[bool, dict[tuple[str, int], list[int]]]:
        """Return whether all sums are replaced, and those that changed."""
        # The bound on the width ends the loop also where there are more apps than bins may be.
        while len(self.bins) > MOST_BINS and self.width < 1 << 60:
            self._widen()
        anew, keys = self.anew, self.bins.keys() if self.anew else self.changed
        rows = {key: self.bins[key] for key in keys}
        self.changed, self.anew = set(), False
        return anew, rows

    def _widen(self) -> None:
        """Double the width of the bins: each two of the old make one, and all rows are written anew."""
        narrow, self.bins, self.anew = self.bins, {}, True
        width, self.width = self.width, 2 * self.width
        for (app, begin), (started, ended, start_offsets, end_offsets) in narrow.items():
            shift = begin & width
            sums = self.bins.setdefault((app, begin - shift), [0, 0, 0, 0])
            sums[0] += started
            sums[1] += ended
            sums[2] += start_offsets + shift * started
            sums[3] += end_offsets + shift * ended
