"""Versions of what both ends of a run must agree in, and the words about those that differ."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from flow_executors.common.code_digest import code_digest

CODE_VARIABLE = "FLOW_COMPARE_CODE"
"""Set where a manager is to tell the digest of its code: it takes some 40 ms, and says nothing of the script's own."""
_VERSION = re.compile(r"^__version__ *= *[\"']([^\"']+)[\"']", re.MULTILINE)
_MEANING = {
    "Python": "that is well, unless tasks need the newer one",
    "flow-executors": "what only one of them knows does not work",
    "flow-core": "apps may fail on nodes that lack what the script's version has",
    "cloudpickle": "functions by value may not be unpickled there",
}


def version_of(package: str) -> str:
    """Return the version of a package that says it in its first file, without importing it; empty if it does not."""
    loaded = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(loaded, str):
        return loaded
    try:
        spec = find_spec(package)
        text = Path(spec.origin).read_text() if spec is not None and spec.origin else ""
    except (OSError, ValueError, ImportError):
        return ""
    found = _VERSION.search(text)
    return found[1] if found else ""


@lru_cache(maxsize=1)
def own_code() -> str:
    """Return the digest of Flow's own code here, as it was at the first call; empty where it cannot be read."""
    try:
        return code_digest("flow_core", "flow_executors")
    except OSError:
        return ""


def other_code(theirs: str, ours: str, release: str, node: str) -> str:
    """Return what is to be said of a node whose Flow is of the script's release, but other code; empty: it is the same.

    Args:
        theirs: Digest of the node's; empty of those that do not tell it, which are older.
        ours: Digest of the script's; empty: it is not known.
        release: That both say.
        node: The node's name.
    """
    if not ours or theirs == ours:
        return ""
    which = f"code {theirs[:8]}" if theirs else "older code, without a digest"
    return (
        f"node {node} has another Flow than the script under the same release number {release} ({which}; the script "
        f"has {ours[:8]}): tasks may fail there, with errors that name other causes. Send the script's with "
        "bootstrap=True, or install the same Flow there"
    )


def differences(theirs: Mapping[str, str], ours: Mapping[str, str], node: str) -> dict[str, str]:
    """Return what is to be said of each kind of software whose versions are known and differ."""
    return {
        kind: f"node {node} has {kind} {theirs[kind]}, the script has {ours[kind]}: {meaning}"
        for kind, meaning in _MEANING.items()
        if theirs.get(kind) and ours.get(kind) and theirs[kind] != ours[kind]
    }
