"""The user's cache of a machine, where Flow keeps what was brought, by its digest.

Standard library of Python 3.7 and later only: it is also sent to nodes by itself, with
``flow_executors.launching.node_loader``, before Flow is there.
"""

from __future__ import annotations

import os


def cache_places() -> list[str]:
    """Return where it may be, the best first: below ``$FLOW_CACHE`` if it is set, else ``~/.cache/flow`` and others."""
    named = os.environ.get("FLOW_CACHE")
    # One that is named may be shared by all users: each has a directory of its own in it.
    if named:
        return [os.path.join(named, str(os.geteuid()))]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    import tempfile  # as in all of this module: what only packs code for nodes does without

    own = f"flow-cache-{os.geteuid()}"
    others = [os.path.join(tempfile.gettempdir(), own), f"/dev/shm/{own}"]
    # A user without a home (a number, in a container) has "~" there.
    return [os.path.join(home, "flow"), *others] if os.path.isabs(home) else others


def cache_directory(kind: str) -> str:
    """Return a directory of the cache for one kind of things, made if it is missing. What lies there may be run.

    Raises:
        OSError: none can be written, or others could write there; the text names all that were tried.
    """
    import tempfile

    said = []
    for root in cache_places():
        try:
            place = private(os.path.join(private(root), kind))
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError as error:
            said.append(f"{root}: {error.strerror or error}")
    raise OSError(f"set FLOW_CACHE to a directory that can be written ({'; '.join(said)})")


def private(place: str) -> str:
    """Make a directory, or check that it is ours alone: what lies there is run. Raises OSError."""
    os.makedirs(place, 0o700, exist_ok=True)
    link, found = os.lstat(place), os.stat(place)
    # Not another user's link to a directory of ours either.
    if link.st_uid != os.geteuid() or found.st_uid != os.geteuid():
        raise PermissionError("it is another user's")
    if found.st_mode & 0o022:
        raise PermissionError("others could write there")
    return place
