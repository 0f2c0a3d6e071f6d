"""The two configurations that every machine can run."""

from __future__ import annotations

from flow.compat.parsl.adapters.configuration import Config
from flow.compat.parsl.adapters.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.compat.parsl.adapters.providers import LocalProvider


def fresh_threads() -> Config:
    """Return a configuration of threads."""
    return Config(executors=[ThreadPoolExecutor()])


def fresh_htex() -> Config:
    """Return a configuration of one block of processes on this machine."""
    provider = LocalProvider(init_blocks=1, max_blocks=1)
    return Config(executors=[HighThroughputExecutor(label="htex_local", cores_per_worker=1, provider=provider)])


threads = fresh_threads()
htex = fresh_htex()
