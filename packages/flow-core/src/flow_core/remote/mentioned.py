"""Code that a pickle mentions, read from its bytes: what pickle has met, without a call of Python for each object."""

from __future__ import annotations

import copyreg
import re
import sys

_MISSING = object()
_MENTION = re.compile(rb"\x8c(.)([!-~]+)\x94\x8c(.)([!-~]+)\x94\x93", re.DOTALL)
"""Name of a module, name in it, each with its length and memoized, and the opcode that makes them one object."""
_MAKES_GLOBAL = b"\x93"  # STACK_GLOBAL, by which protocol 4 and later name classes and functions
_LONGEST = 64 << 10
"""A longer pickle holds data, in which the opcode's byte stands by chance; and takes its time anyway."""


def mentioned(data: bytes) -> dict[tuple[str, str], object] | None:
    """Return the objects that a pickle of protocol 4 or 5, made just now by this process, refers to by name.

    Returns:
        The objects by module and path in it; None where the bytes do not tell all of them beyond doubt. Data that looks
        like a name may add objects; it cannot hide one.
    """
    # With registered extensions pickle writes numbers in the place of names.
    if len(data) > _LONGEST or copyreg._extension_registry:  # type: ignore[attr-defined]  # names as numbers
        return None
    # The counts agree only if the pattern has found each place where the opcode may stand: a name that is memoized and
    # used again has another form.
    mentions = _MENTION.findall(data)
    if len(mentions) != data.count(_MAKES_GLOBAL):
        return None
    found = {}
    for module_size, module, size, path in mentions:
        if module_size[0] != len(module) or size[0] != len(path):
            return None
        # The pickle was made by this process just now, so what it names is here and nothing is imported.
        one: object = sys.modules.get(module.decode(), _MISSING)
        for name in path.split(b"."):
            one = getattr(one, name.decode(), _MISSING)
        if one is _MISSING:
            return None
        found[module.decode(), path.decode()] = one
    return found
