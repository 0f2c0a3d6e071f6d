"""The key of a call: one digest over the app, what its function is, and its arguments."""

from __future__ import annotations

from typing import cast

from flow_core.errors import Unhashable
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoKey
from flow_core.interfaces.snapshot import Identity, Part
from flow_core.memo.arguments import STREAMS, named_arguments
from flow_core.memo.digest import CannotDigest, digest, frame
from flow_core.memo.identity import encoded, identify, joined

SOURCE = "source"
"""Name of the part that holds the key by source text, 16 bytes, for another Python minor version. Not in the digest."""
_RULES = b"flow memo 1"
_SHORT = 8
_PATH_MAX = 80


def memo_key(app: AppIdentity, call: Call) -> MemoKey:
    """Return the key of a call whose arguments are resolved; its function counts as it was at the call. Any thread.

    Raises:
        Unhashable: an argument, or the function itself, cannot be part of a key; the message names it.
    """
    try:
        identity = identify(app.func) if call.snapshot is None else call.snapshot.identity()
    except CannotDigest as error:
        raise _unhashable(app, "the function itself", type(app.func).__qualname__, error) from error
    about = Part("app", app.name.encode())
    tag = Part("cache tag", app.cache_tag.encode())
    arguments = _argument_parts(app, call, identity)
    parts = (about, tag, *identity.parts, *arguments)
    shown = tuple((part.name, digest(part.encoded)[:_SHORT]) for part in parts)
    if identity.source is not None:
        shown += ((SOURCE, _total((about, tag, Part(SOURCE, identity.source), *arguments))),)
    return MemoKey(_total(parts), app.name, shown)


def source_key(key: MemoKey) -> bytes | None:
    """Return the key by source text, or None where there is none."""
    if key.parts and key.parts[-1][0] == SOURCE:
        return key.parts[-1][1]
    return None


def _total(parts: tuple[Part, ...]) -> bytes:
    return digest(frame(b"K", _RULES) + b"".join(joined(part) for part in parts))


def _argument_parts(app: AppIdentity, call: Call, identity: Identity) -> list[Part]:
    """Return the parts of the arguments, in the order of their names; defaults count as if passed."""
    given = named_arguments(app.func, call.args, call.kwargs, app.ignore)
    skipped = STREAMS.union(app.ignore)
    found = {name: default for name, default in identity.defaults if name not in given and name not in skipped}
    for name, value in given.items():
        try:
            found[name] = encoded(value)
        except CannotDigest as error:
            raise _no_argument(app, name, type(value).__qualname__, error) from error
    for name, default in found.items():
        if isinstance(default, CannotDigest):
            raise _no_argument(app, name, "its default", default) from default
    return [Part(f"argument {name!r}", cast(bytes, found[name])) for name in sorted(found)]


def _no_argument(app: AppIdentity, name: str, what: str, error: CannotDigest) -> Unhashable:
    path = "".join(error.path)
    shown = path if len(path) <= _PATH_MAX else path[:_PATH_MAX] + "..."
    return _unhashable(app, f"argument '{name}{shown}'", what, error)


def _unhashable(app: AppIdentity, what: str, given: str, error: CannotDigest) -> Unhashable:
    return Unhashable(
        f"{what} of cached app {app.name!r} (given as {given}) cannot be part of a key: "
        f"{error.reason}. Say what identifies the type with id_for_memo.register(...), leave the parameter out with "
        "ignore_for_cache=[...], or call the app with cache=False."
    )
