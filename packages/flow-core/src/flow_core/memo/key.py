"""The key of a call: one digest over the app, what its function is, and its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

from flow_core.errors import Unhashable
from flow_core.interfaces.call import Call, Resources
from flow_core.interfaces.memoizer import ARGUMENT, AppIdentity, MemoKey
from flow_core.interfaces.snapshot import Identity, Part
from flow_core.interfaces.versions import content_of
from flow_core.memo.arguments import OUTPUTS, STREAMS, named_arguments
from flow_core.memo.digest import CannotDigest, digest, frame
from flow_core.memo.identity import ValueFindings, encoded, identify, joined, shown

SOURCE = "source"
"""Name of the part that holds the key by source text, 16 bytes, for another Python minor version. Not in the digest."""
FILE = "file "
"""Beginning of the names of parts that stand for contents of files."""
_APART = 100
"""Number of files that are parts of their own. The others are one part, so that very many take few parts of a key."""
_BEGIN = frame(b"K", b"flow memo 1")  # the version of the format: with another number no earlier result is found
_PATH_MAX = 80  # characters of a path into an argument, so that the message stays readable


def memo_key(app: AppIdentity, call: Call) -> MemoKey:
    """Return the key of a call whose arguments are resolved; its function counts as it was at the call. Any thread.

    Raises:
        Unhashable: an argument, or the function itself, cannot be part of a key; the message names it.
    """
    try:
        # The snapshot is of the moment of the call; the function may have changed while the task waited for its
        # parents.
        identity = identify(app.func) if call.snapshot is None else call.snapshot.identity()
    except CannotDigest as error:
        raise _unhashable(app, "the function itself", type(app.func).__qualname__, error) from error
    about = Part("app", app.name.encode())
    tag = Part("cache tag", app.cache_tag.encode())
    arguments, findings = _argument_parts(app, call, identity)
    parts = (*shown((about, tag)), *identity.shown, *shown(arguments))
    if identity.source is not None:
        parts += ((SOURCE, _total((about, tag, Part(SOURCE, identity.source), *arguments))),)
    told = [part for part in arguments if part.about]
    details = (*identity.parts, *told) if told else identity.parts
    unknown = (*identity.unknown, *findings.unknown) if findings.unknown else identity.unknown
    return MemoKey(
        _total((about, tag), identity.joined, arguments), app.name, parts, tuple(findings.files), details, unknown
    )


def with_contents(key: MemoKey, contents: Sequence[tuple[str, str]]) -> MemoKey:
    """Return the key of a call in which, beside all that counts in the one given, some files have such contents.

    Args:
        key: A key in which the files count by their names.
        contents: What each file is called in messages, and its version.
    """
    # Contents alone, without the stamp of later runs: a file that was written again with the same bytes is the same.
    parts = tuple(
        Part(f"{FILE}{name!r}", content_of(version).encode(), (("", version),)) for name, version in contents[:_APART]
    )
    if others := contents[_APART:]:
        each = (frame(b":", repr(name).encode() + b"\0" + content_of(version).encode()) for name, version in others)
        parts += (Part(f"{FILE}{others[0][0]!r} and others, {len(others)} in all", digest(b"".join(each))),)
    return _with_parts(key, parts)


def with_streams(key: MemoKey, streams: Sequence[tuple[str, str]]) -> MemoKey:
    """Return the key of a call of which standard streams go to Files: their names and URLs count beside all else."""
    return _with_parts(key, tuple(Part(f"{name}=", url.encode()) for name, url in streams))


def with_container(key: MemoKey, described: str) -> MemoKey:
    """Return the key of a call that runs in a container: what that is counts beside all else."""
    return _with_parts(key, (Part("container", described.encode(errors="surrogateescape")),))


def with_ranks(key: MemoKey, asked: Resources) -> MemoKey:
    """Return the key of a call that runs on ranks: what it returns depends on how many there are, and where.

    Args:
        key: A key in which the ranks do not count.
        asked: What the task asks for; ``ranks`` is stated.
    """
    anywhere = (asked.ranks or 0) > asked.nodes * asked.ranks_per_node
    shape: tuple[tuple[str, object], ...] = (
        ("ranks", asked.ranks),
        ("nodes", None if anywhere else asked.nodes),
        ("ranks_per_node", None if anywhere else asked.ranks_per_node),
        # An int and a float of the same value are one shape.
        ("cores_per_rank", None if asked.cores_per_rank is None else float(asked.cores_per_rank)),
        ("gpus_per_rank", None if asked.gpus_per_rank is None else float(asked.gpus_per_rank)),
    )
    return _with_parts(key, (Part("shape of its ranks", repr(shape).encode(), shape),))


def _with_parts(key: MemoKey, parts: tuple[Part, ...]) -> MemoKey:
    names = shown(parts)
    source = source_key(key)
    # The key by source text must follow, or another Python would find results of other contents.
    if source is not None:
        names += ((SOURCE, _total((Part("call", source), *parts))),)
    before = key.parts if source is None else key.parts[:-1]
    return replace(
        key, digest=_total((Part("call", key.digest), *parts)), parts=(*before, *names), details=(*key.details, *parts)
    )


def source_key(key: MemoKey) -> bytes | None:
    """Return the key by source text, or None where there is none."""
    if key.parts and key.parts[-1][0] == SOURCE:
        return key.parts[-1][1]
    return None


def _total(parts: Iterable[Part], middle: bytes = b"", others: Iterable[Part] = ()) -> bytes:
    """Return the digest of parts, of some that were joined before, and of others."""
    return digest(b"".join((_BEGIN, *map(joined, parts), middle, *map(joined, others))))


def _argument_parts(app: AppIdentity, call: Call, identity: Identity) -> tuple[list[Part], ValueFindings]:
    """Return the parts of the arguments, in the order of their names; defaults count as if passed.

    And what was met in them: with the files that the function names those that the call may read.
    """
    given = named_arguments(app.func, call.args, call.kwargs, app.ignore)
    skipped = STREAMS.union(app.ignore)
    defaults = {name: default for name, default in identity.defaults if name not in given and name not in skipped}
    # Files among outputs= are what the call makes, so what is in them before does not count.
    findings = ValueFindings(
        [file for name, file in identity.files if not name or (name in defaults and name != OUTPUTS)], []
    )
    found: dict[str, Part] = {}
    for name, value in given.items():
        try:
            found[name] = encoded(
                f"{ARGUMENT}{name!r}",
                value,
                identity.attributes,
                findings if name != OUTPUTS else ValueFindings([], []),
            )
        except CannotDigest as error:
            raise _no_argument(app, name, type(value).__qualname__, error) from error
    for name, default in defaults.items():
        if isinstance(default, CannotDigest):
            raise _no_argument(app, name, "its default", default) from default
        found[name] = Part(f"{ARGUMENT}{name!r}", cast(bytes, default))
    # Sorted by name, so that f(a=1, b=2) and f(b=2, a=1) are one call.
    return [found[name] for name in sorted(found)], findings


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
