"""Run ids in addresses: any text at all, written with letters that no server or browser rewrites."""

from __future__ import annotations

import re

from werkzeug.routing import BaseConverter, ValidationError

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9._-]|~[0-9A-F]{2})+")


class RunIdConverter(BaseConverter):
    """Writes ``a/b`` as ``a~2Fb``. A dot stays only between plain characters, so ``..`` is never in an address."""

    regex = r"[^/]+"

    def to_python(self, value: str) -> str:
        """Return the run id of a part of an address."""
        if not _ESCAPED.fullmatch(value):
            # Werkzeug then answers 404, as for any address that does not exist.
            raise ValidationError
        data = re.sub(rb"~([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), value.encode())
        return data.decode("utf-8", "replace")

    def to_url(self, value: str) -> str:
        """Return the part of an address for a run id."""
        data = value.encode("utf-8", "replace")
        out = [chr(b) if _PLAIN.match(bytes([b])) else f"~{b:02X}" for b in data]
        # An empty id has no part of an address; "~" alone stands for none, and is never read back.
        return "".join(out) or "~"
