"""What to look at to know that a function is as it was: everything it names, reached through the user's own code.

What cannot change is compared by identity alone, so a look costs some tens of nanoseconds a name. Of what can change in
place the contents are looked at: the elements of containers by identity, of arrays the bytes, of other objects their
pickle. Of containers, arrays and pickles that are large only samples are looked at, unless all is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_

from flow_core.snapshot.finder import Finder, Name


class Looks:
    """Everything to be looked at, and what it was. Any thread.

    Attributes:
        unchanged: Tells whether all is as it was.
        named: What functions name of the global names of modules, each once.
        code: The user's own functions and classes that were met.
        caches: Functions of the user's own that remember their results (functools).
        imported: Modules and attributes of them that functions use by imports of their own.
    """

    __slots__ = ("caches", "code", "imported", "named", "unchanged")

    def __init__(self, function: Callable[..., object], whole: bool) -> None:
        """Look for the first time; with ``whole`` at all of large values too."""
        found = Finder(whole)
        found.begin(function)
        self.named: tuple[Name, ...] = tuple(found.named)
        self.code = found.code
        self.caches = found.caches
        self.imported = found.imported
        rest = _Rest(found).unchanged if found.reads or found.contents else None
        self.unchanged: Callable[[], bool] = found.checks.made(rest)


class _Rest:
    """Looks into what can change in place."""

    __slots__ = ("_contents", "_kept", "_reads")

    def __init__(self, found: Finder) -> None:
        self._reads = found.reads
        self._contents = found.contents
        self._kept = found.kept

    def unchanged(self) -> bool:
        """Tell whether all is as it was. May raise, if it is not."""
        for read, source, then in self._reads:
            now = read(source)
            if len(now) != len(then) or not all(map(is_, now, then)):
                return False
        for content, source, was in self._contents:  # noqa: SIM110  (all() makes an object on the way of each call)
            if content(source) != was:
                return False
        return True
