"""Versions of the script's classes, for those that travel by value; see ``flow_core.remote.classes``."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import NamedTuple

from flow_core.snapshot.looks import Looks

_KEPT = 256
_SIZE = 16


class _Version(NamedTuple):
    """A class (kept, so its id stays its own), what to look at to know whether it is so still, and a name for that."""

    cls: type
    looks: Looks
    name: bytes


_versions: OrderedDict[int, _Version] = OrderedDict()


def version_of(cls: type) -> bytes:
    """Return a name for what a class and all that its methods name are now. Any thread.

    It is the same as before only if nothing of that has changed meanwhile.
    """
    known = _versions.get(id(cls))
    if known is not None and known.looks.unchanged():
        return known.name
    made = _versions[id(cls)] = _Version(cls, Looks(cls, whole=True), os.urandom(_SIZE))
    if len(_versions) > _KEPT:
        _versions.popitem(last=False)
    return made.name
