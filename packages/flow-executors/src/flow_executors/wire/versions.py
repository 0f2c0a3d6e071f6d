"""Versions of the protocol. Each side states the lowest and the highest it speaks; the highest common one is used."""

from __future__ import annotations

from flow_executors.errors import VersionMismatch

LOWEST = 1
HIGHEST = 1


def agree(lowest: int, highest: int, who: str) -> int:
    """Return the highest version that both sides speak.

    Raises:
        VersionMismatch: there is none; the text names both sides.
    """
    version = min(highest, HIGHEST)
    if version < max(lowest, LOWEST):
        raise VersionMismatch(
            f"{who} speaks versions {lowest} to {highest} of the protocol, this process {LOWEST} to {HIGHEST}: "
            "install the same release of flow-executors on both sides"
        )
    return version


def same_python(theirs: str, ours: str, who: str) -> None:
    """Check that two Python versions agree in major and minor number.

    Raises:
        VersionMismatch: they differ; the text names both.
    """
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise VersionMismatch(
            f"{who} runs Python {theirs}, the script runs Python {ours}: functions cannot travel between them. "
            "Activate the same environment in the provider's worker_init"
        )
