"""Text that others may have written, made fit for a terminal: it shows characters and does nothing else.

Names, messages and paths come from files, databases and processes that are not always the user's. A terminal takes
control characters among them as orders: to overwrite lines, to change its title, to write to the clipboard.
"""

from __future__ import annotations

import re

_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 but for tabs and newlines, other ends of lines, what turns the direction of text, halves of characters."""


def printable(text: str) -> str:
    """Return a text in which control characters stand as escapes of Python; newlines and tabs stay."""
    return _ORDERS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
