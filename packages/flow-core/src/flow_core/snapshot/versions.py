"""Versions of the script's classes, for those that travel by value; see ``flow_core.remote.classes``."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import NamedTuple

from flow_core.snapshot.finder import FunctionLooks

_KEPT = 256  # classes; a class that is forgotten gets a new version, which costs one more packing
_SIZE = 16  # bytes; random, so that no two versions are equal by chance


class _Version(NamedTuple):
    """A class (kept, so its id stays its own), what to look at to know whether it is so still, and a name for that."""

    cls: type
    looks: FunctionLooks
    name: bytes


_versions: OrderedDict[int, _Version] = OrderedDict()


def version_of(cls: type) -> bytes:
    """Return a name for what a class and all that its methods name are now. Any thread.

    It is the same as before only if nothing of that has changed meanwhile.
    """
    known = _versions.get(id(cls))
    if known is not None and known.looks.unchanged():
        return known.name
    # A random name and no digest: what a class names may have none, and equal versions are found by looks.
    made = _versions[id(cls)] = _Version(cls, FunctionLooks(cls, whole=True), os.urandom(_SIZE))
    if len(_versions) > _KEPT:
        _versions.popitem(last=False)
    return made.name
