"""What an executor wants of a node beside what its provider asks the scheduler for: pure arithmetic, and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Options of an executor, and what its provider asks for on each node.

    Attributes:
        provider: Name of the provider's class.
        cores_per_worker: Cores of one worker.
        mem_per_worker: GB of one worker; None: not stated.
        max_workers: Most workers of a node; infinite: as many as fit.
        cores_per_node: Cores that are asked for on each node; None: none are.
        mem_per_node: GB that are asked for on each node; None: none are.
        shares_nodes: Whether a job that asks for no cores gets one of each node, and not all.
        asks_for_use: Whether the provider asks for what the workers use where its options say nothing.
        nodes: Nodes of a block.
        on_one_node: Whether the provider's launcher starts workers on the first of these nodes alone.
    """

    provider: str
    cores_per_worker: float = 1.0
    mem_per_worker: float | None = None
    max_workers: float = math.inf
    cores_per_node: float | None = None
    mem_per_node: float | None = None
    shares_nodes: bool = False
    asks_for_use: bool = False
    nodes: int = 1
    on_one_node: bool = False


def expected_use(wanted: BlockRequest) -> tuple[int | None, float | None]:
    """Return the cores and the GB that the workers of a node use, as far as the options say; None: they do not."""
    workers = 1 if wanted.max_workers == math.inf else wanted.max_workers
    cores = math.ceil(workers * wanted.cores_per_worker)
    return (cores if cores > 1 else None), (workers * wanted.mem_per_worker if wanted.mem_per_worker else None)


def contradictions(wanted: BlockRequest) -> Iterator[str]:
    """Yield a sentence for each option of the executor that the request of its blocks does not allow for."""
    yield from _of_cores(wanted)
    yield from _of_memory(wanted)
    if wanted.on_one_node and wanted.nodes > 1:
        yield (
            f"{wanted.provider}(nodes_per_block={wanted.nodes}) has workers on the first node alone, with the launcher "
            "SingleNodeLauncher: the others are idle. Give a launcher that starts a copy on each node, such as "
            "SrunLauncher or MpiExecLauncher"
        )


def _of_cores(wanted: BlockRequest) -> Iterator[str]:
    provider, each, most, asked = (
        wanted.provider,
        wanted.cores_per_worker,
        wanted.max_workers,
        wanted.cores_per_node,
    )
    workers = most if most != math.inf else 1
    if asked is None:
        if wanted.shares_nodes and not wanted.asks_for_use and workers * each > 1:
            needs = f"max_workers={most:g} of {each:g} cores" if most != math.inf else f"cores_per_worker={each:g}"
            yield (
                f"{needs} is not asked of the scheduler: {provider} is given no cores_per_node, and a job on shared "
                f"nodes gets one core then. Give it cores_per_node={math.ceil(workers * each)}"
            )
        return
    if each > asked:
        yield (
            f"cores_per_worker={each:g} is more than {provider} asks for on each node (cores_per_node={asked:g}): no "
            "worker fits"
        )
    elif most != math.inf and workers * each > asked:
        yield (
            f"max_workers={most:g} of {each:g} cores are more than {provider} asks for on each node "
            f"(cores_per_node={asked:g}): there will be {math.floor(asked / each + 1e-9)} workers"
        )


def _of_memory(wanted: BlockRequest) -> Iterator[str]:
    provider, each, most, asked = wanted.provider, wanted.mem_per_worker, wanted.max_workers, wanted.mem_per_node
    if not each:
        return
    if asked is None:
        if wanted.shares_nodes and not wanted.asks_for_use:
            workers = most if most != math.inf else 1
            yield (
                f"mem_per_worker={each:g} is not asked of the scheduler: {provider} is given no mem_per_node. Give it "
                f"mem_per_node={workers * each:g}"
            )
    elif each > asked:
        yield (
            f"mem_per_worker={each:g} is more than {provider} asks for on each node (mem_per_node={asked:g}): no "
            "worker fits"
        )
    elif most != math.inf and most * each > asked:
        yield (
            f"max_workers={most:g} of {each:g} GB are more than {provider} asks for on each node "
            f"(mem_per_node={asked:g}): there will be {math.floor(asked / each + 1e-9)} workers"
        )
