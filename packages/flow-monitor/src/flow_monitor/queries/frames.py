"""Records as pandas frames; needs ``flow-monitor[pandas]``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from flow_monitor.errors import MonitorError

if TYPE_CHECKING:
    import pandas


def frame(records: Iterable[object]) -> pandas.DataFrame:
    """Return records of one kind as a frame: a column a field, times as UTC timestamps.

    Raises:
        MonitorError: pandas is not installed.
        TypeError: these are no records.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise MonitorError("frames need pandas: install flow-monitor[pandas]") from error
    rows = list(records)
    if not rows:
        return pandas.DataFrame()
    if not is_dataclass(rows[0]):
        raise TypeError(f"{type(rows[0]).__name__} is no record of flow_monitor.queries")
    names = [f.name for f in fields(rows[0])]
    made = pandas.DataFrame({name: [getattr(row, name) for row in rows] for name in names})
    for name in names:
        if name.startswith("time_"):
            made[name] = pandas.to_datetime(made[name], unit="ns", utc=True)
    return made
