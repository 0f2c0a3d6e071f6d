"""Digest of a release's own code: releases are one only if it is. Also run on nodes by itself, before Flow is there."""

from __future__ import annotations

import os
from hashlib import blake2b
from importlib.util import find_spec


def code_digest(*packages: str) -> str:
    """Return a digest over all modules of packages; empty where they are in no directories.

    Tests and what serves them do not count: they are not on all nodes. Raises OSError: a module cannot be read.
    """
    whole, found = blake2b(digest_size=16), False
    for package in packages:
        spec = find_spec(package)
        for top in (spec and spec.submodule_search_locations) or ():
            for folder, below, names in os.walk(top):
                below[:] = sorted(set(below) - {"__pycache__", "test", "tests", "testing"})
                for name in sorted(names):
                    if name.endswith(".py"):
                        path = os.path.join(folder, name)
                        with open(path, "rb") as file:
                            content = file.read()
                        inside = f"{package}/{os.path.relpath(path, top)}"
                        whole.update(f"{len(inside)} {len(content)} {inside}".encode())
                        whole.update(content)
                        found = True
    return whole.hexdigest() if found else ""
