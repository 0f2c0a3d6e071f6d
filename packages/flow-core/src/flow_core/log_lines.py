"""How each log of Flow is written: one record begins one line, whatever others have put into its text."""

from __future__ import annotations

import logging

from flow_core.printable import printable

_NEXT = "\n    "


class LogLines(logging.Formatter):
    """Formats records whose texts may come from strangers, nodes, servers or tasks.

    Control characters stand as escapes. Line breaks stay, since tracebacks and advice have them, but all lines of a
    record after its first are indented by four spaces: a text cannot look like a record of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of one record."""
        return printable(super().format(record)).replace("\n", _NEXT)
