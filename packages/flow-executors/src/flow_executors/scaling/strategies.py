"""The built-in strategies: pure functions from what is seen to blocks to add (positive) or to release (negative)."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from flow_core.errors import ConfigurationError
from flow_core.interfaces.scaling import ScalingView, Strategy
from flow_executors.scaling.formula import wanted_blocks


def none(view: ScalingView) -> int:
    """Never change anything: the first blocks are all there is."""
    return 0


def simple(view: ScalingView) -> int:
    """Add blocks as tasks need them; release them when nothing at all has been active for the idle time."""
    return _missing(view) or (0 if _active(view) else -_idle_beyond(view, view.limits.min_blocks))


def htex_auto_scale(view: ScalingView) -> int:
    """As ``simple``, and release single blocks that have been idle for the idle time while others work."""
    if not view.partial_release:
        return simple(view)
    return _missing(view) or -_idle_beyond(view, _wanted(view))


def strategy_of(name: str | Strategy | None) -> Strategy:
    """Return a strategy by its name, or the user's own.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if callable(name):
        return name
    if name is None:
        return none
    if name not in BUILT_IN:
        close = get_close_matches(name, BUILT_IN, 1)
        hint = f": did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(f"strategy={name!r} is not known{hint} Known: {', '.join(BUILT_IN)}, or a function")
    return BUILT_IN[name]


BUILT_IN: Final[Mapping[str, Strategy]] = {"none": none, "simple": simple, "htex_auto_scale": htex_auto_scale}


def _active(view: ScalingView) -> int:
    return view.load.waiting + view.load.running


def _wanted(view: ScalingView) -> int:
    return wanted_blocks(_active(view), view.load.slots_per_block, view.limits)


def _missing(view: ScalingView) -> int:
    return max(0, _wanted(view) - view.active_blocks)


def _idle_beyond(view: ScalingView, kept: int) -> int:
    """Blocks beyond those to keep that have been idle for long enough."""
    idle = sum(1 for seconds in view.idle_for_s if seconds >= view.max_idletime_s)
    return max(0, min(idle, view.active_blocks - kept))
