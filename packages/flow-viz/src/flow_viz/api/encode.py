"""The encoding of records as plain JSON data."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum


def plain(value: object) -> object:
    """Return a record, with records in it, as dictionaries and lists; enums as their values."""
    if isinstance(value, Enum):
        return value.value
    # Not dataclasses.asdict: it copies every value deeply, and leaves enums as they are, which JSON does not take.
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    return value
