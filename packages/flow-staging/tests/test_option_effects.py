"""Options that all methods of a kind share reach what moves the files, whichever side that is on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flow_staging import (
    FsspecStaging,
    FTPInTaskStaging,
    FTPSeparateTaskStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    RetryPolicy,
    S3Staging,
    SizeLimits,
)
from flow_staging.transfer.cache import CachePolicy

# Each is given limits=, retry= and cache=.
METHODS: list[Callable[..., Any]] = [
    FTPInTaskStaging,
    FTPSeparateTaskStaging,
    FsspecStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    S3Staging,
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("option", "value"),
    [("limits", SizeLimits(max_bytes=7)), ("retry", RetryPolicy(tries=3)), ("cache", CachePolicy(max_files=7))],
    ids=["limits", "retry", "cache"],
)
def test_it_reaches_what_moves_the_files(method: Callable[..., Any], option: str, value: object) -> None:
    made = method(**{option: value})
    try:
        # Methods that move on either side are made of one that moves on the side that was chosen.
        assert getattr(getattr(made, "_method", made)._mover, option) is value
        assert f"{option}={value!r}" in repr(made)
    finally:
        made.close()
