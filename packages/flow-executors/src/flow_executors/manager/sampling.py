"""The description of a run's sampler on a manager's command line."""

from __future__ import annotations

import json

from flow_core.interfaces.sampler import SamplerSpec


def spec_to_text(spec: SamplerSpec) -> str:
    """Return a sampler's description as JSON, for a command line."""
    return json.dumps({"factory": spec.factory, "interval_s": spec.interval_s, "settings": dict(spec.settings)})


def spec_from_text(text: str) -> SamplerSpec:
    """Read a sampler's description. Raises ValueError, KeyError or TypeError if it is none."""
    found = json.loads(text)
    return SamplerSpec(str(found["factory"]), float(found["interval_s"]), tuple(found["settings"].items()))
