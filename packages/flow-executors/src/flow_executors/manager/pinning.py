"""Which CPUs and accelerators each worker gets. Pure: all that is looked at is handed in."""

from __future__ import annotations

from collections.abc import Sequence

from flow_core.errors import ConfigurationError

_MODES = "'none', 'block', 'block-reverse', 'alternating', or 'list:0,1:2,3' with CPUs for each worker"


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
    if mode.startswith("list:"):
        try:
            _listed(mode)
        except ValueError:
            raise ConfigurationError(f"cpu_affinity={mode!r}: CPUs are numbers; use {_MODES}") from None
    elif mode not in ("none", "block", "block-reverse", "alternating"):
        raise ConfigurationError(f"cpu_affinity={mode!r} is not known: use {_MODES}")


def cpus_of(rank: int, workers: int, mode: str, cpus: Sequence[int]) -> list[int]:
    """Return the CPUs of one worker, out of those that the manager may use; empty for no pinning.

    ``block`` gives neighbours to a worker, ``block-reverse`` the same from the other end, ``alternating`` every n-th.
    With more workers than CPUs several share one.
    """
    if mode == "none" or not cpus:
        return []
    if mode.startswith("list:"):
        groups = _listed(mode)
        return groups[rank % len(groups)]
    share = len(cpus) // workers
    if not share:
        return [cpus[rank % len(cpus)]]
    if mode == "alternating":
        return list(cpus[rank::workers][:share])
    first = rank if mode == "block" else workers - 1 - rank
    return list(cpus[first * share : (first + 1) * share])


def _listed(mode: str) -> list[list[int]]:
    return [[int(cpu) for cpu in group.split(",")] for group in mode.removeprefix("list:").split(":")]
