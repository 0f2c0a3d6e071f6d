"""What all pages of one server share: the database, and a small cache of computed layouts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from flask import current_app

from flow_monitor.queries.database import Database

T = TypeVar("T")
_KEPT = 16


class Site:
    """The database and the cache. Any thread."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._cache: OrderedDict[Hashable, object] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for a key before, or make it now; the last few are kept."""
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return cast(T, self._cache[key])
        made = make()
        with self._lock:
            self._cache[key] = made
            while len(self._cache) > _KEPT:
                self._cache.popitem(last=False)
        return made


def site() -> Site:
    """Return the site of the request at hand."""
    found: Site = current_app.extensions["flow_viz"]
    return found
