"""Resources of the node and each worker's part of them: memory, CPUs, accelerators, and the block's remaining time."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from flow_core.errors import ConfigurationError, ExecutorError
from flow_core.interfaces.sampler import SamplerSpec
from flow_executors.common.node_options import listed_cpus, wrong_affinity
from flow_executors.manager.granted import granted_by_scheduler, limits_of_process

MB = 1 << 20
GB = 1 << 30


class NoRoom(ExecutorError):
    """Not one worker fits on this node; the message says what is missing and which option asks for it."""


@dataclass(frozen=True, slots=True)
class NodeResources:
    """What a manager finds: cores and memory that it may use, and what the machine has in all. Memory in bytes.

    ``granted_by`` names the scheduler that granted them; empty where none did.
    """

    cores: float
    memory: int
    cpu_count: int
    memory_total: int
    granted_by: str = ""


def look_at_node(environment: Mapping[str, str] = os.environ) -> NodeResources:
    """Look at what this job may use of this machine.

    ``FLOW_CORES`` and ``FLOW_MEMORY_GB``, which providers set where the user said what to ask for, come first. Else
    cores are those that the scheduler granted the job here, and never more than the CPUs that this process may run on
    and what its control groups allow; memory is what was granted, else what is free, and never more than limits leave.
    """
    granted = granted_by_scheduler(environment, socket.gethostname())
    limits = limits_of_process()
    memory = psutil.virtual_memory()
    seen = min(float(len(os.sched_getaffinity(0))), limits.cores or math.inf)
    cores = _number(environment, "FLOW_CORES") or min(seen, granted.cores or math.inf)
    memory_gb = _number(environment, "FLOW_MEMORY_GB")
    there = memory.available if granted.memory is None else min(granted.memory, memory.total)
    free = int(memory_gb * GB) if memory_gb else min(there, there if limits.memory is None else limits.memory)
    return NodeResources(cores, free, os.cpu_count() or 1, memory.total, granted.source)


def count_workers(
    node: NodeResources,
    *,
    cores_per_worker: float,
    mem_per_worker_gb: float | None,
    max_workers: float,
    accelerators: int | None,
) -> int:
    """Return how many workers fit: by cores, memory, accelerators and the user's cap, whichever is least.

    Raises:
        NoRoom: not one.
    """
    limits: dict[str, float] = {"max_workers": max_workers, "cores_per_worker": _times(node.cores, cores_per_worker)}
    if mem_per_worker_gb:
        limits["mem_per_worker"] = _times(node.memory, mem_per_worker_gb * GB)
    if accelerators is not None:
        limits["available_accelerators"] = accelerators
    # The option that binds, so that the error names the one to change.
    option = min(limits, key=lambda name: limits[name])
    if limits[option] >= 1:
        return int(limits[option])
    by = f", granted by {node.granted_by}" if node.granted_by else ""
    raise NoRoom(
        f"not one worker fits on this node ({node.cores:g} cores, {node.memory / GB:.1f} GB of memory free{by}): "
        f"option {option} asks for more"
    )


def _times(amount: float, share: float) -> int:
    return math.floor(amount / share + 1e-9)


def _number(environment: Mapping[str, str], name: str) -> float:
    text = environment.get(name, "")
    try:
        number = float(text) if text else 0.0
    except ValueError:
        raise NoRoom(f"the environment variable {name} is {text!r}: a number is needed") from None
    return number if number > 0 and math.isfinite(number) else 0.0


def accelerator_names(available: int | Sequence[str]) -> tuple[str, ...]:
    """Return what each worker may be given: ``3`` stands for ``0, 1, 2``; an entry ``'0,1'`` gives two to one worker.

    A name that is repeated is shared by as many workers.
    """
    if isinstance(available, int):
        return tuple(str(number) for number in range(available))
    return tuple(available)


def devices(entries: Sequence[str]) -> tuple[str, ...]:
    """Return the single accelerators behind the entries, each once."""
    return tuple(dict.fromkeys(name.strip() for entry in entries for name in entry.split(",") if name.strip()))


def accelerator_environment(names: str) -> dict[str, str]:
    """Return the variables by which CUDA, ROCm and Level Zero see only these accelerators (names joined by commas)."""
    return {
        "CUDA_VISIBLE_DEVICES": names,
        "ROCR_VISIBLE_DEVICES": names,
        "ZE_AFFINITY_MASK": names,
        "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1",
    }


def check_affinity(mode: str) -> None:
    """Check the option ``cpu_affinity``.

    Raises:
        ConfigurationError: it is none of the modes.
    """
    if wrong := wrong_affinity(mode):
        raise ConfigurationError(f"cpu_affinity {wrong}, not {mode!r}")


def cpus_of(rank: int, workers: int, mode: str, cpus: Sequence[int]) -> list[int]:
    """Return the CPUs of one worker, out of those that the manager may use; empty for no pinning.

    ``block`` gives neighbours to a worker, ``block-reverse`` the same from the other end, ``alternating`` every n-th.
    With more workers than CPUs several share one.
    """
    if mode == "none" or not cpus:
        return []
    if mode.startswith("list:"):
        groups = listed_cpus(mode)
        return groups[rank % len(groups)]
    share = len(cpus) // workers
    if not share:
        return [cpus[rank % len(cpus)]]
    if mode == "alternating":
        return list(cpus[rank::workers][:share])
    first = rank if mode == "block" else workers - 1 - rank
    return list(cpus[first * share : (first + 1) * share])


@dataclass(frozen=True, slots=True)
class BlockLifetime:
    """The block's own time in seconds; ``walltime_s`` and ``left_s`` are 0 where not known.

    Attributes:
        walltime_s: How long the block lasts in all.
        age_s: How long it has been running.
        left_s: How long it will go on.
    """

    walltime_s: float = 0.0
    age_s: float = 0.0
    left_s: float = 0.0


def look_at_lifetime(walltime_s: float, environment: Mapping[str, str] = os.environ) -> BlockLifetime:
    """Find out when the block ends: from the scheduler if it states it, else from its walltime and the job's start.

    The job began before this process did: modules are loaded and programs started on many nodes before.
    """
    left = _told_by_slurm(environment)
    if left is not None:
        return BlockLifetime(max(walltime_s, left), max(0.0, walltime_s - left), left)
    if not walltime_s:
        return BlockLifetime()
    age = min(_age_of_session(), walltime_s / 2)  # a session that is older is none of a job
    return BlockLifetime(walltime_s, age, walltime_s - age)


def _told_by_slurm(environment: Mapping[str, str]) -> float | None:
    text = environment.get("SLURM_JOB_END_TIME", "")
    return max(0.0, int(text) - time.time()) if text.isdigit() and text != "0" else None


def _age_of_session() -> float:
    try:
        return max(0.0, time.time() - psutil.Process(os.getsid(0)).create_time())
    except (psutil.Error, OSError):
        return 0.0


def spec_to_text(spec: SamplerSpec) -> str:
    """Return a sampler's description as JSON, for a command line."""
    return json.dumps({"factory": spec.factory, "interval_s": spec.interval_s, "settings": dict(spec.settings)})


def spec_from_text(text: str) -> SamplerSpec:
    """Read a sampler's description. Raises ValueError, KeyError or TypeError if it is none."""
    found = json.loads(text)
    return SamplerSpec(str(found["factory"]), float(found["interval_s"]), tuple(found["settings"].items()))
