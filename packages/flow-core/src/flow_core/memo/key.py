"""The key of a call: one digest over the app, what its function is, and its arguments."""

from __future__ import annotations

from flow_core.errors import Unhashable
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoKey
from flow_core.memo.arguments import named_arguments
from flow_core.memo.digest import CannotDigest, digest, frame
from flow_core.memo.identity import FunctionWalker, Part, identify, joined

SOURCE = "source"
"""Name of the part that holds the key by source text, 16 bytes, for another Python minor version. Not in the digest."""
_RULES = b"flow memo 1"
_SHORT = 8
_PATH_MAX = 80


def memo_key(app: AppIdentity, call: Call) -> MemoKey:
    """Return the key of a call whose arguments are resolved. Any thread.

    Raises:
        Unhashable: an argument, or the function itself, cannot be part of a key; the message names it.
    """
    try:
        identity = identify(app.func)
    except CannotDigest as error:
        raise _unhashable(app, "the function itself", app.func, error) from error
    about = Part("app", app.name.encode())
    tag = Part("cache tag", app.cache_tag.encode())
    arguments = _argument_parts(app, call)
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


def _argument_parts(app: AppIdentity, call: Call) -> list[Part]:
    parts = []
    for name, value in named_arguments(app.func, call.args, call.kwargs, app.ignore):
        try:
            parts.append(Part(f"argument {name!r}", FunctionWalker().encode(value)))
        except CannotDigest as error:
            path = "".join(error.path)
            shown = path if len(path) <= _PATH_MAX else path[:_PATH_MAX] + "..."
            raise _unhashable(app, f"argument '{name}{shown}'", value, error) from error
    return parts


def _unhashable(app: AppIdentity, what: str, value: object, error: CannotDigest) -> Unhashable:
    return Unhashable(
        f"{what} of cached app {app.name!r} (given as {type(value).__qualname__}) cannot be part of a key: "
        f"{error.reason}. Say what identifies the type with id_for_memo.register(...), leave the parameter out with "
        "ignore_for_cache=[...], or call the app with cache=False."
    )
