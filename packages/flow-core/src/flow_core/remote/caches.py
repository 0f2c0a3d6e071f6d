"""Functions and properties that remember their results (functools) and travel by value.

pickle knows ``lru_cache`` by name only, which no other process finds in ``__main__``, and ``cached_property`` not where
it holds a lock (before Python 3.12). What they remember stays where it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

CachedFunction: type = type(functools.lru_cache(lambda: None))
"""The type of what ``functools.cache`` and ``functools.lru_cache`` return."""

# Attributes that lru_cache sets itself; all others were set by the user and travel.
_OWN = ("__wrapped__", "cache_parameters")


class _Later:
    """Calls a function that is known only when all that it names, the cache itself perhaps, has been unpickled."""

    __slots__ = ("function",)

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def reduced_function(cached: Any) -> str | tuple[Any, ...]:
    """Return how a cached function is made anew: by name where others can import it, else with an empty cache."""
    if _is_importable(cached):
        name: str = cached.__qualname__
        return name
    # An empty cache is made first and filled afterwards: the function may name the cache itself, which must be there by
    # then.
    attributes = {name: value for name, value in vars(cached).items() if name not in _OWN}
    return _empty, tuple(cached.cache_parameters().values()), (cached.__wrapped__, attributes), None, None, _fill


def reduced_property(cached: functools.cached_property[Any]) -> tuple[Any, ...]:
    """Return how a cached property is made anew; subclasses are asked themselves."""
    if type(cached) is not functools.cached_property:
        reduced: Any = cached.__reduce_ex__(5)
        return reduced  # type: ignore[no-any-return]  # a tuple, as the language says
    return _property, (cached.func, cached.attrname)


def _is_importable(cached: Any) -> bool:
    from cloudpickle.cloudpickle import _is_registered_pickle_by_value, _lookup_module_and_qualname

    found = _lookup_module_and_qualname(cached)
    return found is not None and not _is_registered_pickle_by_value(found[0])


def _empty(maxsize: int | None, typed: bool) -> Any:
    later = _Later()
    cached: Any = functools.lru_cache(maxsize, typed)(later)
    cached.__wrapped__ = later
    return cached


def _fill(cached: Any, state: tuple[Callable[..., Any], dict[str, Any]]) -> None:
    function, attributes = state
    cached.__wrapped__.function = function
    cached.__wrapped__ = function
    vars(cached).update(attributes)


def _property(function: Callable[..., Any], name: str | None) -> functools.cached_property[Any]:
    made: functools.cached_property[Any] = functools.cached_property(function)
    if name is not None:
        # Python calls it when a class is made; a property that is made by itself would not know its attribute.
        made.__set_name__(object, name)
    return made
