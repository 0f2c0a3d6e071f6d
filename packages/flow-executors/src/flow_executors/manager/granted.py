"""What a job was granted on this node: cores and memory, by what its scheduler, control groups and limits say.

Only reads. Every reader takes the environment, the host's name and a function that reads files, so that it is tested
without a scheduler.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_MB = 1 << 20
_UNLIMITED = 1 << 60  # control groups of version 1 write a number near 2**63 where there is no limit
_CGROUPS = "/sys/fs/cgroup"

Environment = Mapping[str, str]
Read = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job may use of this node.

    Attributes:
        cores: Cores; None where nothing is said of them.
        memory: Bytes; None where nothing is said of it.
        source: Who says so, for people.
    """

    cores: float | None = None
    memory: int | None = None
    source: str = ""


def read_file(path: str) -> str:
    """Return the text of a file; empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def granted_by_scheduler(environment: Environment, host: str, read: Read = read_file) -> Grant:
    """Return what the scheduler of this job granted on this host; an empty grant where nothing says so.

    A job that runs under two of them (Torque's commands before Slurm) is asked of the one that holds the nodes.
    """
    for reader in (_slurm, _condor, _lsf, _gridengine, _pbs):
        grant = reader(environment, host, read)
        if grant.cores is not None or grant.memory is not None:
            return grant
    return Grant()


def _slurm(environment: Environment, host: str, read: Read) -> Grant:
    if "SLURM_JOB_ID" not in environment:
        return Grant()
    cores = _number(environment.get("SLURM_CPUS_ON_NODE"))
    of_node = _number(environment.get("SLURM_MEM_PER_NODE"))  # MB; 0 stands for all there is
    of_core = _number(environment.get("SLURM_MEM_PER_CPU"))
    memory = of_node or (of_core * cores if of_core and cores else None)
    return Grant(cores, None if memory is None else int(memory * _MB), "Slurm (SLURM_CPUS_ON_NODE)")


def _condor(environment: Environment, host: str, read: Read) -> Grant:
    path = environment.get("_CONDOR_MACHINE_AD", "")
    if not path:
        return Grant()
    found = dict(re.findall(r"^(Cpus|Memory)\s*=\s*([0-9.]+)\s*$", read(path), re.MULTILINE))
    memory = _number(found.get("Memory"))
    return Grant(_number(found.get("Cpus")), None if memory is None else int(memory * _MB), "HTCondor (the slot's ad)")


def _lsf(environment: Environment, host: str, read: Read) -> Grant:
    if "LSB_JOBID" not in environment:
        return Grant()
    words = environment.get("LSB_MCPU_HOSTS", "").split()
    slots = _of_host(host, zip(words[::2], words[1::2], strict=False))
    if slots is None:
        hosts = environment.get("LSB_HOSTS", "").split()
        slots = _of_host(host, ((name, "1") for name in hosts))
        if slots is None and len(set(hosts)) <= 1 and len(words) <= 2:
            slots = _number(environment.get("LSB_DJOB_NUMPROC"))
    return Grant(slots, None, "LSF (LSB_MCPU_HOSTS)")


def _gridengine(environment: Environment, host: str, read: Read) -> Grant:
    if "NSLOTS" not in environment or "JOB_ID" not in environment:
        return Grant()
    rows = [line.split() for line in read(environment.get("PE_HOSTFILE", "")).splitlines()]
    slots = _of_host(host, ((row[0], row[1]) for row in rows if len(row) > 1))
    # NSLOTS counts the slots of all hosts of the job.
    if slots is None and (_number(environment.get("NHOSTS")) or 1) <= 1:
        slots = _number(environment["NSLOTS"])
    return Grant(slots, None, "Grid Engine (NSLOTS)")


def _pbs(environment: Environment, host: str, read: Read) -> Grant:
    if "PBS_JOBID" not in environment:
        return Grant()
    # Torque writes a host once for each of its cores (ppn), PBS Pro once for each process and tells the cores by NCPUS.
    hosts = read(environment.get("PBS_NODEFILE", "")).split()
    lines = _of_host(host, ((name, "1") for name in hosts))
    cores = max((n for n in (lines, _number(environment.get("NCPUS"))) if n), default=None)
    return Grant(cores, None, "PBS (PBS_NODEFILE, NCPUS)")


def _of_host(host: str, rows: Iterable[tuple[str, str]]) -> float | None:
    """Return the sum of the numbers that stand beside a host, whose name may be with or without its domain."""
    short = host.partition(".")[0]
    numbers = [_number(text) or 0 for name, text in rows if name.partition(".")[0] == short]
    return sum(numbers) or None


def _number(text: str | None) -> float | None:
    """Return a positive number; None for all else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", text or "")
    return (float(match[1]) or None) if match else None


def limits_of_process(read: Read = read_file, address_space: int | None = None) -> Grant:
    """Return the least that the control groups of this process, all that they are in, and its own limits leave to it.

    Memory is what is left of it: caches that the kernel gives back count as free.

    Args:
        read: Reads files.
        address_space: Limit of the address space in bytes, as schedulers without control groups set it; None: look.
    """
    groups = _groups(read("/proc/self/cgroup"))
    cores = [quota for folder in groups for quota in (_quota(folder, read),) if quota is not None]
    memory = [left for folder in groups for left in (_memory_left(folder, read),) if left is not None]
    if address_space is None:
        address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 < address_space < _UNLIMITED:
        memory.append(address_space)
    return Grant(min(cores, default=None), min(memory, default=None), "control groups and limits")


def _groups(text: str) -> list[str]:
    """Return the directories of the control groups of a process and of all above them, of both versions."""
    found = [_CGROUPS]  # in a container the group of the process may lie at the root, whatever its path says
    for line in text.splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        names = controllers.split(",") if controllers else []
        if controllers and not {"cpu", "memory"}.intersection(names):
            continue
        # Version 1 mounts each set of controllers by itself, under its name or the names of each.
        roots = (
            [_CGROUPS] if not controllers else [f"{_CGROUPS}/{name}" for name in dict.fromkeys([controllers, *names])]
        )
        parts = [part for part in path.split("/") if part and part != ".."]
        found += ["/".join([root, *parts[:depth]]) for root in roots for depth in range(len(parts), -1, -1)]
    return list(dict.fromkeys(found))


def _quota(folder: str, read: Read) -> float | None:
    """Return the cores that a control group may use; None where it has no limit."""
    words = read(f"{folder}/cpu.max").split() or [
        read(f"{folder}/cpu.cfs_quota_us"),
        read(f"{folder}/cpu.cfs_period_us"),
    ]
    quota, period = (_number(word) for word in (words + [""])[:2])
    # Not below one: less than a core still runs one task at a time.
    return max(1.0, quota / period) if quota and period else None


def _memory_left(folder: str, read: Read) -> int | None:
    """Return the bytes that a control group may still use; None where it has no limit."""
    for limit_name, used_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(read(f"{folder}/{limit_name}"))
        if limit is None or limit >= _UNLIMITED:
            continue
        used = _number(read(f"{folder}/{used_name}")) or 0
        cached = re.search(rf"^{cache_name} (\d+)$", read(f"{folder}/memory.stat"), re.MULTILINE)
        return max(0, int(limit - used + (min(int(cached[1]), used) if cached else 0)))
    return None
