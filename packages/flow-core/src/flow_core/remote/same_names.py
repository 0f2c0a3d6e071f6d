"""Names that some file systems take for one: they tell no capitals from small letters, or no ways to write accents."""

from __future__ import annotations

import os
from collections.abc import Iterable

_PREFIX = ".flow-names-"


def folded(path: str) -> str:
    """Return the same text for all paths that some file system takes for one; they are as many elsewhere."""
    if path.isascii():
        return path.lower()
    import unicodedata  # few names need it

    # Folded in the decomposed form, since folding may bring accents that compose otherwise.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def first_pair(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two of some different names that ``folded`` makes one; None if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        before = seen.setdefault(folded(name), name)
        if before != name:
            return before, name
    return None


def are_one(folder: str, path: str, other: str) -> bool:
    """Tell whether two relative paths below a directory, of which none need be there, are one on its file system.

    It is asked by a directory of that name, made for a moment in a new one: that costs some calls of the system, and is
    for paths that ``folded`` makes one. False where nothing can be made.
    """
    from tempfile import TemporaryDirectory  # loads much that nodes need not

    # What is not made yet will be on the file system of the nearest directory above it.
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        with TemporaryDirectory(prefix=_PREFIX, dir=folder or ".") as asked:
            os.makedirs(os.path.join(asked, path))
            return os.path.lexists(os.path.join(asked, other))
    except (OSError, ValueError):
        return False
