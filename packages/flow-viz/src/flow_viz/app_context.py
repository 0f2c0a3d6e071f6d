"""The context that all pages of one server share: the database, and a small cache of computed layouts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from flask import current_app

from flow_monitor.queries.database import Database

T = TypeVar("T")
_KEPT = 16  # results: those of the few pages that a person has open; only the magnitude matters


class AppContext:
    """The database and a cache of the last results. May be used by any thread, several at once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._cache: OrderedDict[Hashable, object] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached value of a key, or make it in this thread; the last 16 are kept."""
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return cast(T, self._cache[key])
        # Outside of the lock: a layout may take seconds, and other pages must not wait. Two that ask at once both make
        # it; the last one stays.
        made = make()
        with self._lock:
            self._cache[key] = made
            while len(self._cache) > _KEPT:
                self._cache.popitem(last=False)
        return made


def site() -> AppContext:
    """Return the context of the application that answers the present request."""
    found: AppContext = current_app.extensions["flow_viz"]
    return found
