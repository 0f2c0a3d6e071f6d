"""Tasks of ranks in a manager: those that run here, and what is kept here for those that run elsewhere. One thread.

The manager where such a task runs, its head, has its placement; the others keep room and devices for it, and run what
the head asks for by REMOTE messages. How commands are started, and how they reach other nodes, is the shell's matter.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from flow_core.errors import FlowError
from flow_core.interfaces.call import TaskSpec
from flow_core.interfaces.outcome import Loss, LossKind, Place, Verdict
from flow_executors.common.resources import ResourceRequest
from flow_executors.common.task_ranks import RankPlacement, RankRequest
from flow_executors.manager.manager_core import ManagerCore
from flow_executors.manager.node import accelerator_environment
from flow_executors.wire.kinds import Received
from flow_executors.wire.messages import pack_loss
from flow_executors.wire.ranks import (
    RemoteExit,
    RemoteMessage,
    RemoteStep,
    pack_exit_status,
    pack_remote,
    unpack_break,
    unpack_placement,
    unpack_release,
    unpack_remote,
    unpack_reserve,
)

log = logging.getLogger("flow.manager")

NOT_STARTED = b"a node of its ranks was lost before it began"
_NO_SHELL = 255  # exit code of what could not be started


class DaemonLoss(Protocol):
    """A process of a task was killed on a node, other than by Flow."""

    key: int
    node: str
    how: str


class RankShell(Protocol):
    """Starts commands of tasks of ranks, and carries their streams between nodes. Event loop's thread.

    Attributes:
        ready_fd: A descriptor that is readable when ``outgoing`` or ``losses`` have something.
    """

    ready_fd: int

    def open_task(self, key: int, placement: RankPlacement, request: RankRequest) -> Mapping[str, str]:
        """Begin with a task that runs here; return variables for its worker. Raises FlowError."""
        ...

    def reserve(self, key: int, devices: Mapping[str, str]) -> None:
        """Allow commands of a task that runs elsewhere; they see these variables of devices."""
        ...

    def end_task(self, key: int) -> None:
        """End all commands of a task, here and from here, and forget it. Never raises."""
        ...

    def received(self, message: RemoteMessage) -> None:
        """Take a message of another manager."""
        ...

    def outgoing(self) -> list[bytes]:
        """Return the REMOTE messages that are to be sent."""
        ...

    def losses(self) -> Sequence[DaemonLoss]:
        """Return the processes that were killed, other than by this."""
        ...

    def running(self) -> Mapping[int, int]:
        """Return pid -> key of the commands that run here for tasks of other managers."""
        ...

    def give_up(self, pid: int, how: str) -> None:
        """End a command that runs here for another manager; its task is lost, for what is told by ``how``."""
        ...

    def close(self) -> None:
        """End all commands."""
        ...


class RankTasks:
    """The tasks of ranks of one manager.

    Args:
        core: What assigns tasks here.
        node: Name of this node.
        shell: Starts commands; None: placements are kept, and nothing is started.
        give: Notes variables for the worker of a task.

    Attributes:
        classes: What the classes of tasks of ranks ask for, by class id.
        heads: The placements of tasks that are here.
    """

    def __init__(
        self,
        core: ManagerCore,
        node: str,
        shell: RankShell | None,
        give: Callable[[int, Mapping[str, str]], None],
    ) -> None:
        self._core = core
        self._node = node
        self._shell = shell
        self._give = give
        self.classes: dict[int, tuple[RankRequest, ResourceRequest]] = {}
        self.heads: dict[int, RankPlacement] = {}
        self._broken: dict[int, bytes] = {}  # key -> the loss under which it is to be reported
        self._unsent: deque[bytes] = deque()

    @property
    def ready_fd(self) -> int | None:
        """A descriptor that is readable when ``outgoing`` is to be asked; None where there is none."""
        return None if self._shell is None else self._shell.ready_fd

    @property
    def spread(self) -> tuple[int, ...]:
        """The tasks here that have ranks on other nodes."""
        return tuple(key for key, placement in self.heads.items() if len(placement.places) > 1)

    # -- of the head

    def learn(self, class_id: int, spec: TaskSpec, demand: ResourceRequest) -> None:
        """Note what a class is; ``demand`` has its priority and times."""
        request = RankRequest.of(spec.resources)
        if request is not None:
            self.classes[class_id] = request, demand

    def take_placement(self, message: Received, now: float) -> None:
        """Take PLACEMENT, which comes ahead of the task."""
        key, placement = unpack_placement(message)
        self.heads[key] = placement

    def coming(self, class_id: int, keys: Iterable[int]) -> dict[int, bytes]:
        """Tasks of ranks are about to be given to the core; return the losses of those that cannot be begun here."""
        request, demand = self.classes[class_id]
        lost = {}
        for key in keys:
            placement = self.heads.get(key)
            if placement is None:
                continue
            mine = request.demand(placement.head.ranks, self._core.capacity)
            self._core.place(key, replace(demand, slots=placement.head.slots, memory_mb=mine.memory_mb, gpus=mine.gpus))
            if self._shell is not None:
                try:
                    self._give(key, self._shell.open_task(key, placement, request))
                except FlowError as error:
                    log.error("task %d has no way to its other nodes: %s", key, error)
                    lost[key] = self._loss(f"it has no way to its other nodes: {error}")
        self.ended(lost)
        return lost

    def take_break(self, message: Received) -> int:
        """Take BREAK: a node of a task's ranks is lost; return which task's."""
        key, loss = unpack_break(message)
        self._break_off(key, loss)
        return key

    def _break_off(self, key: int, loss: bytes) -> None:
        if key in self.heads and key not in self._broken:
            self._broken[key] = loss
            self._core.cancel((key,), kill=True)

    def _loss(self, reason: str) -> bytes:
        return pack_loss(Loss(LossKind.WORKER, Place("", "", self._node), reason=reason))

    def outcome_if_broken(self, key: int, started: bool) -> tuple[Verdict, bytes] | None:
        """Return the outcome of a task that was ended since a node of its ranks is lost; None where that is not so."""
        loss = self._broken.get(key)
        if loss is None:
            return None
        return (Verdict.LOST, loss) if started else (Verdict.RETURNED, NOT_STARTED)

    def ended(self, keys: Iterable[int]) -> None:
        """Tasks are not here any more, however that came."""
        for key in keys:
            if self.heads.pop(key, None) is not None:
                self._broken.pop(key, None)
                if self._shell is not None:
                    self._shell.end_task(key)

    # -- of members

    def take_reserve(self, message: Received, now: float) -> None:
        """Take RESERVE: keep room for tasks that run elsewhere."""
        found = unpack_reserve(message)
        if found.all:
            kept = {part.key for part in found.parts}
            self._release([key for key in self._core.parts if key not in kept])
        for part in found.parts:
            if part.key in self._core.parts:
                continue
            devices = self._core.reserve(part.key, ResourceRequest(part.slots, part.memory_mb, part.gpus))
            if self._shell is not None:
                self._shell.reserve(part.key, accelerator_environment(",".join(devices)) if devices else {})

    def take_release(self, message: Received, now: float) -> None:
        """Take RELEASE: tasks that run elsewhere are over."""
        self._release(unpack_release(message))

    def _release(self, keys: Iterable[int]) -> None:
        for key in keys:
            # What was started for it ends first: its room is for others then.
            if key in self._core.parts and self._shell is not None:
                self._shell.end_task(key)
            self._core.release(key)

    # -- streams

    def take_remote(self, message: Received, now: float) -> None:
        """Take REMOTE, of another manager of the same task."""
        remote = unpack_remote(message)
        if self._shell is not None:
            self._shell.received(remote)
        elif remote.step == RemoteStep.START:
            ended = RemoteExit(_NO_SHELL, f"node {self._node} starts no commands for tasks of ranks")
            self._unsent.append(
                pack_remote(RemoteStep.EXIT, remote.manager, remote.key, remote.stream, pack_exit_status(ended))
            )

    def outgoing(self, registered: bool) -> list[bytes]:
        """Return what is to be sent to other managers; what cannot be now is kept."""
        if self._shell is not None:
            self._unsent += self._shell.outgoing()
            for loss in self._shell.losses():
                self._break_off(loss.key, self._loss(f"on node {loss.node} {loss.how}"))
        if not registered:
            return []
        messages = [*self._unsent]
        self._unsent.clear()
        return messages

    def running(self) -> Mapping[int, int]:
        """Return pid -> key of the commands that run here for tasks of other managers."""
        return {} if self._shell is None else self._shell.running()

    def give_up(self, pid: int, how: str) -> None:
        """End a command that runs here for another manager; its task is lost, for what is told by ``how``."""
        if self._shell is not None:
            self._shell.give_up(pid, how)

    def close(self) -> None:
        """End all commands."""
        if self._shell is not None:
            self._shell.close()
