"""Runs the sampler that the run asks for, once an interval, on this node."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.sampler import NodeSampler, Sample, SamplerSpec

log = logging.getLogger("flow.manager")


def spec_to_text(spec: SamplerSpec) -> str:
    """Return a sampler's description as JSON, for a command line."""
    return json.dumps({"factory": spec.factory, "interval_s": spec.interval_s, "settings": dict(spec.settings)})


def spec_from_text(text: str) -> SamplerSpec:
    """Read a sampler's description. Raises ValueError, KeyError or TypeError if it is none."""
    found = json.loads(text)
    return SamplerSpec(str(found["factory"]), float(found["interval_s"]), tuple(found["settings"].items()))


class Sampling:
    """A sampler and its clock. It never raises: a sampler that fails is dropped, with a line in the log."""

    def __init__(self, spec: SamplerSpec, now: float) -> None:
        self._interval_s = max(0.1, spec.interval_s)
        self._sampler: NodeSampler | None = self._make(spec)
        self._sampled: frozenset[int] = frozenset()
        self.due = now + self._interval_s

    def _make(self, spec: SamplerSpec) -> NodeSampler | None:
        try:
            module, _, name = spec.factory.partition(":")
            made: NodeSampler = getattr(import_module(module), name)(**dict(spec.settings))
        except Exception as error:
            log.warning("no samples from this node: %s cannot be made (%s)", spec.factory, error)
            return None
        return made

    def take(self, running: Mapping[int, int], now: float) -> Sequence[Sample]:
        """Sample, and set the clock."""
        self.due = now + self._interval_s
        tries = {pid: TryKey(key) for pid, key in running.items()}
        samples = self._ask(lambda sampler: sampler.sample(tries, time.time_ns()))
        self._sampled = frozenset(tries.values())
        return samples

    def ended(self, pid: int, keys: Iterable[int]) -> Sequence[Sample]:
        """Take a last look at what a worker ran, where that was sampled before: so short tasks cost nothing."""
        known = self._sampled.intersection(keys)
        if not known:
            return ()
        self._sampled -= known
        return self._ask(lambda sampler: sampler.ended({pid: TryKey(min(known))}, time.time_ns()))

    def _ask(self, question: Callable[[NodeSampler], Sequence[Sample]]) -> Sequence[Sample]:
        if self._sampler is None:
            return ()
        try:
            return question(self._sampler)
        except Exception as error:
            log.warning("no more samples from this node: %s", error)
            self._sampler = None
            return ()

    def close(self) -> None:
        """Release what the sampler holds."""
        if self._sampler is not None:
            self._sampler.close()
