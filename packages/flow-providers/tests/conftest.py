"""Settings of the property tests: none asserts a time, so that a busy machine fails none."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("flow", deadline=None)
settings.load_profile("flow")
