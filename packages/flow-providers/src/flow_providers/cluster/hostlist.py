"""Lists of node names in the short form of Slurm: ``n[1-3,7],login``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

_PART = re.compile(r"((?:[^,\[\]]|\[[^\]]*\])+)")
_MOST = 100_000  # names; more than any cluster has nodes, so that a garbled list cannot fill the memory


def expand_hosts(text: str) -> tuple[str, ...]:
    """Return the names of a list; other text is left as it is, and ``(null)`` and the like are no nodes."""
    names: list[str] = []
    for part in _PART.findall(text.strip()):
        if part.startswith("(") or part in {"None", "N/A", "n/a"}:
            continue
        names.extend(_names(part))
        if len(names) > _MOST:
            break
    return tuple(names)


def _names(part: str) -> Iterator[str]:
    pieces = re.split(r"\[([^\]]*)\]", part)
    choices = [[piece] if i % 2 == 0 else list(_numbers(piece)) for i, piece in enumerate(pieces)]
    return ("".join(choice) for choice in product(*choices))


def _numbers(text: str) -> Iterator[str]:
    for item in text.split(","):
        low, dash, high = item.partition("-")
        if dash and low.isdecimal() and high.isdecimal() and 0 <= int(high) - int(low) <= _MOST:
            yield from (str(number).zfill(len(low)) for number in range(int(low), int(high) + 1))
        else:
            yield item
