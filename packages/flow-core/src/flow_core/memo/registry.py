"""Registered identities of objects in keys, ``id_for_memo``: what of an object makes two calls the same.

    @id_for_memo.register(Sample)
    def _(sample: Sample) -> object:
        return sample.accession

What the function returns is digested in the object's place, by structure; it serves subclasses too. ``by_content`` is
such a function for files: with ``id_for_memo.register(File)(by_content)`` files are the same when their bytes are,
whatever they are called; as by default they are when their names and their contents are.
"""

from __future__ import annotations

from functools import singledispatch

from flow_core.files import File

_NOT_REGISTERED = object()


@singledispatch
def id_for_memo(value: object) -> object:
    """Return what stands for an object in the key of a cached call. Register functions by type; any thread."""
    return _NOT_REGISTERED


# Kept, so that one comparison tells that nothing is registered: nearly all values are asked and nearly none is.
_default = id_for_memo.dispatch(object)


def registered(value: object) -> tuple[object] | None:
    """Return what stands for an object, in a tuple of one; None if nothing is registered for its type."""
    function = id_for_memo.dispatch(type(value))
    return None if function is _default else (function(value),)


def by_content(file: File) -> object:
    """Return the digest of a file's bytes and their number, for files that are the same whatever they are called.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is remote and has no local copy here.
    """
    return ("content", file.content_digest())
