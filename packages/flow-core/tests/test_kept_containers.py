"""Containers that are kept, as far as no container is needed for it."""

from __future__ import annotations

from typing import Any, cast

from flow_core.remote.kept_containers import KeptContainers, Loop


class Ending:
    """A loop that ends after so many looks at it."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self.closed = 0

    @property
    def lives(self) -> bool:
        self._looks -= 1
        return self._looks >= 0

    def tell_end(self) -> None: ...

    def close(self, timeout_s: float = 0.0) -> None:
        self.closed += 1


def test_a_container_that_ends_between_two_looks_is_closed_once() -> None:
    kept, ending = KeptContainers(), [Ending(looks) for looks in (0, 1, 2)]
    for loop in ending:
        kept.end(cast(Loop, cast(Any, loop)))
    for _ in range(4):
        assert kept.take("none") is None
    assert [loop.closed for loop in ending] == [1, 1, 1]
