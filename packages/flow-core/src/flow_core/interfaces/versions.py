"""Versions of files as text: of one file, of a directory, of all that match a pattern; and what has changed in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from flow_core.interfaces.staging import Versions

_ALL, _SOME = "directory: ", "files: "


def version_of_files(versions: Mapping[str, str], *, whole: bool = False) -> str:
    """Return the version of several files, given their own by their names.

    With ``whole`` it is that of a directory, which another file makes another one; of none it is not empty then.
    """
    # A digest, since a directory may hold very many files; of a pattern the names are needed again.
    if whole:
        return f"{_ALL}{blake2b(json.dumps(sorted(versions.items())).encode(), digest_size=16).hexdigest()}"
    return f"{_SOME}{json.dumps(dict(sorted(versions.items())))}" if versions else ""


def names_of(version: str | None) -> list[str]:
    """Return the names in a version of files that match a pattern."""
    return [] if version is None else list(_parts(version))


def only_made(versions: Versions, found: Mapping[int, Sequence[str]]) -> Versions:
    """Return versions of outputs in which of patterns only those files count that a task has made."""
    kept = list(versions)
    for number, names in found.items():
        # Others that match the pattern may be of other tasks.
        there = _parts(versions[number] or "")
        kept[number] = version_of_files({name: there.get(name, "") for name in names})
    return kept


def version_of_contents(content: str, state: str = "", stamp: str = "") -> str:
    """Return the version of a file that is read: what it holds, what else shows that it was written to, and its stamp.

    Up to three lines, so that a file that is touched, or put back, holds the same as before: ``content_of`` says what.
    The stamp is what the file system says of it as long as nothing can have changed.
    """
    lines = (content, state, stamp) if stamp else (content, state) if state else (content,)
    return "\n".join(lines)


def content_of(version: str) -> str:
    """Return of the version of a file what says what it holds; of most versions all."""
    return version.partition("\n")[0]


def state_of(version: str) -> str:
    """Return the version of a file without its stamp; of most versions all."""
    # The stamp is the third line, and may itself have lines.
    return "\n".join(version.split("\n", 2)[:2])


def stamp_of(version: str) -> str:
    """Return the stamp in the version of a file; empty where there is none."""
    lines = version.split("\n", 2)
    return lines[2] if len(lines) == 3 else ""


def _parts(version: str) -> dict[str, str]:
    if not version.startswith(_SOME):
        return {}
    found = json.loads(version[len(_SOME) :])
    return found if isinstance(found, dict) else {}


def what_changed(before: Versions, now: Versions) -> int | None:
    """Return the index of the first file that is gone or another one, as far as that is known; None if none is."""
    for index, version in enumerate(now):
        was = before[index] if index < len(before) else None
        # A file whose version is not known counts as unchanged: else a method that cannot look would have each call run
        # again.
        if version is None:
            continue
        if was and was.startswith(_SOME):
            now_there = _parts(version)
            if any(not now_there.get(name) or (of and of != now_there[name]) for name, of in _parts(was).items()):
                return index
        elif not version or (was and version != was):
            return index
    return None
