"""Retry budgets: what a task may spend on its own failures, and on those of the machines under it."""

from __future__ import annotations

from dataclasses import dataclass

from flow_core.errors import (
    BlockLost,
    InterchangeLost,
    ManagerLost,
    TaskExceedsBlock,
    TaskKillsWorkers,
    TaskLost,
    WorkerLost,
)
from flow_core.interfaces.outcome import Loss, LossKind

_WALLTIME_LOSSES = 2  # each after most of a block's life: a second one says that the task does not fit into it
_MOST_NODES = 8  # that are avoided at once: the oldest gets another chance
_MAX_RETURNS = 10_000  # a bound for an executor that returns all that it is given; no other comes near it

_BY_KIND: dict[LossKind, type[TaskLost]] = {
    LossKind.WORKER: WorkerLost,
    LossKind.MANAGER: ManagerLost,
    LossKind.BLOCK: BlockLost,
    LossKind.WALLTIME: BlockLost,
    LossKind.INTERCHANGE: InterchangeLost,
    LossKind.EXECUTOR: TaskLost,
    LossKind.TRANSFER: TaskLost,
    LossKind.NODE: TaskLost,
}

_WHAT_DIED: dict[LossKind, str] = {
    LossKind.WORKER: "the worker that ran it died",
    LossKind.MANAGER: "the manager of its node was lost",
    LossKind.BLOCK: "the block it ran in ended",
    LossKind.WALLTIME: "the block it ran in reached its walltime",
    LossKind.INTERCHANGE: "the interchange was lost",
    LossKind.EXECUTOR: "its executor broke",
    LossKind.TRANSFER: "it was lost on the way",
    LossKind.NODE: "its node could not run it",
}


@dataclass(frozen=True, slots=True)
class Budgets:
    """Budgets of a run: the failures that every task may spend.

    Attributes:
        retries: Cost of own failures that is forgiven; a failure costs 1 unless a retry handler says otherwise.
        infrastructure_retries: Tries that may be lost with what ran them.
        max_worker_kills: Workers that may die under a task before it is stopped.
    """

    retries: float = 0
    infrastructure_retries: int = 5
    max_worker_kills: int = 3


class RetryUsage:
    """The budget that one task has used; made at its first failure.

    Attributes:
        failures: Tries that failed by themselves.
        cost: Sum of their costs.
        losses: Tries lost with what ran them.
        kills: Workers that died under the task.
        walltime_losses: Losses to the walltime of a block. Executors report these (LossKind.WALLTIME) only for tries
            that used more than 80% of the block's life; others are BLOCK losses.
        ran_out: How many tries ran out of what, ``memory`` or ``walltime``; of apps that say what grows.
        returns: Tries that came back unstarted.
        requeues: Tries that were told that their block ends, and asked to be made again.
        nodes: Nodes on which tries failed or were lost, sorted; the last few.
        last: How the last of them failed or was lost, in one line; empty where that was not reported.
    """

    __slots__ = (
        "_order",
        "cost",
        "failures",
        "kills",
        "last",
        "losses",
        "nodes",
        "ran_out",
        "requeues",
        "returns",
        "walltime_losses",
    )

    def __init__(self) -> None:
        self.failures = 0
        self.cost = 0.0
        self.losses = 0
        self.kills = 0
        self.walltime_losses = 0
        self.returns = 0
        self.requeues = 0
        self.ran_out: dict[str, int] = {}
        self.nodes: tuple[str, ...] | None = None
        self._order: list[str] = []
        self.last = ""

    def failed_on(self, node: str) -> None:
        """Note where a try failed or was lost."""
        if node in self._order:
            self._order.remove(node)
        self._order = [*self._order, node][-_MOST_NODES:]
        # Sorted, so that all tasks that failed on the same nodes are of one class.
        self.nodes = tuple(sorted(self._order))

    def app_error(self, cost: float, budgets: Budgets) -> bool:
        """Book a failure of the app; return whether another try may be made."""
        self.failures += 1
        self.cost += cost
        # Equality allows: retries=3 forgives three failures of cost 1.
        return self.cost <= budgets.retries

    def returned(self) -> bool:
        """Book a try that came back unstarted; False only for an executor that does nothing else."""
        self.returns += 1
        return self.returns < _MAX_RETURNS

    def out_of(self, what: str) -> None:
        """Note what a try ran out of."""
        self.ran_out[what] = self.ran_out.get(what, 0) + 1

    def requeued(self) -> bool:
        """Book a try that asks to be made again on another block; False only where nothing else ever comes of it."""
        self.requeues += 1
        return self.requeues < _MAX_RETURNS

    def loss(self, loss: Loss, budgets: Budgets, rerun: bool, who: str) -> TaskLost | None:
        """Book a lost try; return None if another may be made, else the error that ends the task."""
        self.losses += 1
        if loss.kind is LossKind.WORKER:
            self.kills += 1
        if loss.kind is LossKind.WALLTIME:
            self.walltime_losses += 1
        if not rerun:
            return loss_error(loss, who, "The app says rerun_on_loss=False, so it was not run again.")
        # Of this kind only: a task whose last loss was that of a node is not what kills workers.
        if self.kills >= budgets.max_worker_kills and loss.kind is LossKind.WORKER:
            return TaskKillsWorkers(
                f"{who} was stopped: {self.kills} workers died under it (max_worker_kills={budgets.max_worker_kills}). "
                f"The last one: {describe(loss)} Look for a crash in native code or for memory running out.",
                loss,
            )
        if self.walltime_losses >= _WALLTIME_LOSSES:
            return TaskExceedsBlock(
                f"{who} was lost {self.walltime_losses} times to the walltime of its block, of which it had used more "
                f"than 80%: give the provider a longer walltime. {describe(loss)}",
                loss,
            )
        if self.losses > budgets.infrastructure_retries:
            return loss_error(loss, who, f"It was lost {_times(self.losses)}, and {_allowed(budgets)}.")
        return None


def loss_error(loss: Loss, who: str, why_final: str = "") -> TaskLost:
    """Return the named error of a loss: what died, where and how, and the tail of its standard error."""
    return _BY_KIND[loss.kind](f"{who} was lost: {describe(loss)} {why_final}".rstrip(), loss)


def describe(loss: Loss) -> str:
    """Return what died, where and how, in sentences, with the end of its standard error on lines of its own."""
    if loss.kind is LossKind.WORKER and loss.reason.startswith(_WHOLE):
        text = f"{loss.reason.rstrip('.')}{_where(loss)}."  # it says what died, and how
    else:
        text = _WHAT_DIED[loss.kind] + _where(loss) + _how(loss) + "."
        if loss.reason:
            text += f" {loss.reason.rstrip('.')}."
    if loss.stderr_tail.strip():
        what = "log" if loss.kind is LossKind.MANAGER else "standard error"
        text += f"\nThe end of its {what}:\n{loss.stderr_tail.rstrip()}\n"
    return text


_WHOLE = "worker "
"""Beginning of the reasons of managers that name the worker and say how it died."""


def _where(loss: Loss) -> str:
    place = loss.place
    if place is None:
        return ""
    named = (("executor", place.executor), ("block", place.block), ("node", place.node), ("manager", place.manager))
    parts = [f"{name} {value}" for name, value in named if value]
    if place.pid:
        parts.append(f"pid {place.pid}")
    return f" ({', '.join(parts)})" if parts else ""


def _how(loss: Loss) -> str:
    if loss.signal is not None:
        return f" by {_signal_name(loss.signal)}"
    return "" if loss.exit_code is None else f" with exit code {loss.exit_code}"


def _signal_name(number: int) -> str:
    from signal import Signals

    try:
        name = Signals(number).name
    except ValueError:
        return f"signal {number}"
    hint = ", often sent when memory runs out" if name == "SIGKILL" else ""
    return f"signal {number} ({name}{hint})"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _allowed(budgets: Budgets) -> str:
    return f"infrastructure_retries={budgets.infrastructure_retries} are allowed"
