"""All workers of a manager: spawning them, writing packets, reading frames, learning of deaths. No decisions.

One epoll over all result pipes and the nursery, whose own descriptor is polled by the shell: its cost does not grow
with the number of workers.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flow_core.errors import ExecutorError
from flow_core.remote.faults import point
from flow_executors.manager import sessions
from flow_executors.manager.letters import Letters
from flow_executors.manager.nursery import Answered, Died, NotSpawned, Nursery, NurseryGone, Spawned
from flow_executors.manager.pipes import Pipes
from flow_executors.manager.records import Handout
from flow_executors.manager.shipments import Shipments
from flow_executors.manager.stream import Frame
from flow_executors.wire.results import BUFFERS
from flow_executors.worker.frames import NEED, PACKET, READY

_FILES = 48
_FILES_A_WORKER = 4
Outfit = Callable[[int], tuple[dict[str, str], Sequence[int]]]
"""rank -> (environment, CPUs)"""


@dataclass(slots=True)
class News:
    """What happened among the workers, gathered in one turn."""

    ready: list[Pipes] = field(default_factory=list)
    results: list[tuple[int, list[Frame]]] = field(default_factory=list)
    """(rank, frames)"""
    needed: list[bytes] = field(default_factory=list)
    died: list[tuple[Died, Pipes | None]] = field(default_factory=list)
    """Their pipes still hold what they did not start."""
    failed: list[NotSpawned] = field(default_factory=list)
    gone: bool = False
    """The nursery is dead."""
    answered: bool = False
    """The nursery gave a sign of life."""


class Crew:
    """The workers. One thread."""

    def __init__(self, nursery: Nursery, outfit: Outfit) -> None:
        self.nursery = nursery
        self._outfit = outfit
        self._pipes: dict[int, Pipes] = {}  # by rank
        self._by_fd: dict[int, Pipes] = {}
        self._epoll = select.epoll()
        self._epoll.register(nursery.fileno(), select.EPOLLIN)
        self.letters = Letters()
        self.shipments = Shipments()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is news."""
        return self._epoll.fileno()

    def spawn(self, rank: int) -> None:
        """Ask for a worker."""
        environment, cpus = self._outfit(rank)
        self.nursery.spawn(rank, environment, cpus)

    def pipes_of(self, rank: int) -> Pipes | None:
        """Return the pipes of a worker; None where there is no worker."""
        return self._pipes.get(rank)

    def kill(self, rank: int, age_s: float | None) -> None:
        """Ask to end a worker with all that its task, begun so long ago, has started."""
        self.nursery.kill(rank, age_s=age_s)

    def sweep(self, rank: int, pid: int, age_s: float) -> None:
        """Ask to end what the task of a dead worker, begun so long ago, has left behind."""
        self.nursery.sweep(rank, pid, age_s)

    def hand_out(self, handouts: Sequence[Handout]) -> list[Handout]:
        """Write tasks into pipes; return those whose pipe is full or gone, or for whose file there is no room."""
        pipes, write, not_written = self._pipes, os.write, []
        for handout in handouts:
            rank, _, record, class_id, _ = handout
            try:
                if class_id or len(record) > PACKET:
                    record = self.letters.packet(handout)
                write(pipes[rank].task_in, record)
            except (OSError, KeyError):
                self.letters.done((handout.key,))
                not_written.append(handout)
        return not_written

    def take_back(self, rank: int, count: int) -> list[tuple[int, bytes | memoryview]]:
        """Read tasks back that a worker has not started."""
        pipes = self._pipes.get(rank)
        return [] if pipes is None else self.letters.opened(pipes.take_back(count))

    def news(self) -> News:
        """Read what there is, without blocking."""
        news = News()
        nursery = False
        for fd, _ in self._epoll.poll(0):
            pipes = self._by_fd.get(fd)
            if pipes is None:
                nursery = True
            else:
                self._sort(news, pipes, pipes.frames())
                if pipes.eof:  # dead, as the nursery will tell; or of no more use
                    self._forget(pipes)
                    self.nursery.kill(pipes.rank)
        if nursery:  # after the results, which may be those of the dead
            self._hear(news)
        return news

    def _hear(self, news: News) -> None:
        for report in self.nursery.receive():
            match report:
                case Spawned():
                    pipes = Pipes(report)
                    self._pipes[report.rank] = self._by_fd[pipes.result_out] = pipes
                    self._epoll.register(pipes.result_out, select.EPOLLIN)
                case Died():
                    news.died.append((report, self._bury(news, report)))
                case NotSpawned():
                    news.failed.append(report)
                case Answered():
                    news.answered = True
                case NurseryGone():
                    news.gone = True

    def _bury(self, news: News, report: Died) -> Pipes | None:
        """Take a dead worker's last words."""
        pipes = self._pipes.get(report.rank)
        if pipes is None or pipes.pid != report.pid:
            return None
        del self._pipes[report.rank]
        self._forget(pipes)
        self._sort(news, pipes, pipes.last_frames())
        return pipes

    def _forget(self, pipes: Pipes) -> None:
        """Listen to a worker no more."""
        if self._by_fd.pop(pipes.result_out, None) is not None:
            self._epoll.unregister(pipes.result_out)

    def _sort(self, news: News, pipes: Pipes, frames: list[Frame]) -> None:
        if not frames:
            return
        point("manager.worker_frames")
        for frame in frames:
            if frame[3] >= BUFFERS:
                break
        else:
            news.results.append((pipes.rank, frames))
            return
        if any(frame[3] == READY for frame in frames):
            news.ready.append(pipes)
        news.needed += [bytes(frame[4]) for frame in frames if frame[3] == NEED]
        take_over = self.shipments.taken_over
        results = [take_over(frame) if frame[3] & BUFFERS else frame for frame in frames if frame[3] < NEED]
        if results:
            news.results.append((pipes.rank, results))

    def abandon(self, reason: str) -> News:
        """After the nursery's death: end all that is left of the workers, and report them dead."""
        news = News()
        self._epoll.unregister(self.nursery.fileno())
        for rank, pipes in list(self._pipes.items()):
            sessions.kill_session(pipes.pid)
            report = Died(rank, pipes.pid, None, signal.SIGKILL, "", f"was killed, since {reason}")
            news.died.append((report, self._bury(news, report)))
        sessions.kill_below(os.getpid())  # orphans of tasks, which this process has adopted
        return news

    def close(self, timeout_s: float = 5.0) -> bool:
        """End all workers and the nursery; return whether they ended by themselves."""
        for pipes in self._pipes.values():
            pipes.close()
        self._pipes.clear()
        self._by_fd.clear()
        self._epoll.close()
        self.shipments.close()
        ended = self.nursery.close(timeout_s)
        if not ended:
            sessions.kill_below(os.getpid())
        return ended


def raise_file_limit(workers: int) -> None:
    """Allow this process, and its workers no less, as many descriptors as the system lets it have.

    Raises:
        ExecutorError: they are too few for so many workers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES + _FILES_A_WORKER * workers
    if 0 <= hard < needed:
        raise ExecutorError(
            f"Too many open files: {workers} workers need {needed} descriptors, this node allows {hard}: raise the "
            "hard limit (ulimit -Hn, limits.conf), or lower max_workers"
        )
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return
