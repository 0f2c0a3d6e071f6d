"""Lists of texts: a single text is one too for Python, and would be taken letter by letter."""

from __future__ import annotations

from collections.abc import Iterable

from flow_providers.errors import BadOption


def listed(values: Iterable[str], where: str, what: str = "job ids") -> list[str]:
    """Return the values as a list.

    Args:
        values: The argument of the caller.
        where: The function it was given to, for the error.
        what: The kind of the values, for the error.

    Raises:
        BadOption: it is a single text, or no list at all.
    """
    # A text is a sequence of texts for Python's types, so no annotation refuses it.
    if isinstance(values, (str, bytes, bytearray)):
        raise BadOption(f"{where} takes a list of {what}, not the single text {values!r}: write [{values!r}]")
    if not isinstance(values, Iterable):
        raise BadOption(f"{where} takes a list of {what}, not {values!r}")
    return list(values)
