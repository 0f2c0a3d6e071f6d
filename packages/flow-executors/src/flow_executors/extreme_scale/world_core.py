"""Which rank has which worker, and who watches whom. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flow_executors.errors import InsufficientMPIRanks
from flow_executors.wire.messages import WorkersOfNode

MOST_RANKS = 65_536
"""Ranks of a block: rank 0, and as many workers as the wire has numbers for."""
LEAST_RANKS = 2


@dataclass(frozen=True, slots=True)
class RankProcess:
    """What a rank says of itself: host name, process, cores and memory of its node."""

    node: str
    pid: int
    cpu_count: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Seat:
    """What a rank is told of its place in the job.

    Attributes:
        worker: Number of its worker; -1 for rank 0, which has none.
        place: Which worker of its node it has.
        together: Workers of its node.
        first: Whether it speaks for its node.
        neighbour: Rank and process on the same node whose end it reports; None where it is alone there.
    """

    worker: int
    place: int
    together: int
    first: bool
    neighbour: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class World:
    """All places of a job.

    Attributes:
        seats: By rank.
        ranks: The rank of each worker, by its number.
        nodes: Nodes with workers, in the order of the workers' numbers.
        homes: The node of each rank.
        pids: The process of each rank.
    """

    seats: tuple[Seat, ...]
    ranks: tuple[int, ...]
    nodes: tuple[WorkersOfNode, ...]
    homes: tuple[str, ...]
    pids: tuple[int, ...]


def too_few(count: int, where: str, cure: str) -> InsufficientMPIRanks:
    """Return the error of a job of one rank, or of none."""
    ranks = "1 rank" if count == 1 else f"{count} ranks"
    return InsufficientMPIRanks(
        f"{where} has {ranks}: at least {LEAST_RANKS} are needed, one for the manager and one for each worker: {cure}"
    )


def names_a_rank(reason: str) -> bool:
    """Tell whether a reason, as of ``RankLiveness``, says of which rank or node it comes.

    Also as the interchange tells it of a manager that left with tasks.
    """
    return reason.removeprefix("it gave up: ").startswith(("rank ", "nothing is heard of node "))


def arrange(processes: Sequence[RankProcess]) -> World:
    """Give each rank its place: workers of one node have numbers in a row.

    Raises:
        InsufficientMPIRanks: there is no rank for a worker.
    """
    if len(processes) < LEAST_RANKS:
        raise too_few(
            len(processes),
            "the MPI job of the block",
            "start it by the mpiexec of the MPI that mpi4py was built for, with more ranks",
        )
    here: dict[str, list[int]] = {}
    for rank, process in enumerate(processes):
        here.setdefault(process.node, []).append(rank)
    seats: list[Seat | None] = [None] * len(processes)
    ranks: list[int] = []
    nodes: list[WorkersOfNode] = []
    for node, members in here.items():
        with_worker = [rank for rank in members if rank]
        place_of = {rank: place for place, rank in enumerate(with_worker)}
        for at, rank in enumerate(members):
            following = members[(at + 1) % len(members)]
            seats[rank] = Seat(
                worker=len(ranks) + place_of[rank] if rank else -1,
                place=place_of.get(rank, 0),
                together=len(with_worker),
                first=rank == (with_worker or members)[0],
                neighbour=None if following == rank else (following, processes[following].pid),
            )
        if with_worker:
            one = processes[with_worker[0]]
            nodes.append(WorkersOfNode(node, len(with_worker), one.pid, one.cpu_count, one.memory_bytes))
        ranks += with_worker
    return World(
        tuple(seat for seat in seats if seat is not None),
        tuple(ranks),
        tuple(nodes),
        tuple(process.node for process in processes),
        tuple(process.pid for process in processes),
    )


@dataclass(slots=True)
class RankLiveness:
    """Which ranks have been heard, and which have ended. Times are seconds of one monotonic clock.

    Args:
        world: The places.
        threshold_s: Seconds of silence after which a rank is given up.
        now: Time of the start.
    """

    world: World
    threshold_s: float
    now: float
    _heard: list[float] = field(default_factory=list)
    _ending: set[int] = field(default_factory=set)
    _looked: float = 0.0
    fell: tuple[int, int] | None = None
    """Rank and process that has ended by itself."""

    def __post_init__(self) -> None:
        self._heard = [self.now] * len(self.world.seats)
        self._looked = self.now

    @property
    def pause_s(self) -> float:
        """Seconds between two looks."""
        return min(15.0, max(0.25, self.threshold_s / 8))

    def heard(self, rank: int, now: float) -> None:
        """A message of a rank came."""
        self._heard[rank] = now

    def ending(self, rank: int) -> None:
        """A rank was told by SIGTERM to end, and lives."""
        self._ending.add(rank)

    @property
    def told(self) -> int:
        """How many ranks have said that they were told to end."""
        return len(self._ending)

    def fallen(self, rank: int, pid: int) -> None:
        """A rank has ended; the first one counts, since MPI ends the others after it."""
        self.fell = self.fell or (rank, pid)

    def everybody(self) -> bool:
        """Whether all ranks have said that they were told to end: then none has ended by itself."""
        return len(self._ending) >= len(self.world.seats) - 1

    def silent(self, now: float) -> str:
        """Return which rank was not heard for too long, in words; empty where none."""
        missed = now - self._looked > 3 * self.pause_s
        self._looked = now
        if missed:  # this process was stopped itself, as when a whole job is suspended
            self._heard = [now] * len(self._heard)
            return ""
        for rank, heard in enumerate(self._heard):
            if rank and now - heard >= self.threshold_s:
                return f"{self._called(rank)} was not heard for {now - heard:.0f} s"
        return ""

    def why(self, signal: str) -> str:
        """Return why the job is being ended, which sent rank 0 a signal."""
        if self.fell is not None:
            return f"{self._called(self.fell[0])} ended, and MPI ends the whole job with it"
        lost = self._lost_nodes()
        if lost:
            names = ", ".join(lost[:3]) + (" and others" if len(lost) > 3 else "")
            return f"nothing is heard of node {names}, and MPI ended the job"
        return f"its block was ended (the manager received {signal})"

    def _lost_nodes(self) -> list[str]:
        """Nodes of which no rank has answered, where most have."""
        members: dict[str, list[int]] = {}
        for rank, node in enumerate(self.world.homes):
            members.setdefault(node, []).append(rank)
        lost = [node for node, ranks in members.items() if 0 not in ranks and self._ending.isdisjoint(ranks)]
        return lost if self._ending and 2 * len(lost) < len(members) else []

    def _called(self, rank: int) -> str:
        return f"rank {rank} (pid {self.world.pids[rank]}) on node {self.world.homes[rank]}"
