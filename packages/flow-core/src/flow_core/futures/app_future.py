"""App futures: the future of a task, over all its tries, which calling an app returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import Derivable
from flow_core.futures.explained import explained, in_one_line
from flow_core.futures.lean import Future
from flow_core.futures.unseen import Ended
from flow_core.guard import one_line
from flow_core.interfaces.waiting import EndedState, shown_state
from flow_core.representation import html_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flow_core.interfaces.waiting import Explanation

R = TypeVar("R")


class Handle(Protocol):
    """The task of an unfinished future, as the future sees it."""

    def status(self) -> str:
        """Return the name of the task's state."""
        ...

    def cancel(self, kill: bool) -> bool:
        """Cancel the task; return whether it is cancelled or will be."""
        ...

    def flush(self) -> None:
        """Have the task's executor send what it has buffered."""
        ...

    def why(self, timeout_s: float) -> Explanation | None:
        """Say why the task is not done yet."""
        ...


class AppFuture(Derivable[R]):
    """The future of one call of an app. Awaitable; never shows the failure of a try that is made again.

    ``future[i]`` and ``future.attr`` are futures of parts of the result.

    Attributes:
        tid: Id of the task, counted from 0 in each run.
    """

    __slots__ = ("_files", "_handle", "tid")

    def __init__(self, tid: int, handle: Handle | None = None) -> None:
        Future.__init__(self)  # super() would take as long as all of this
        self.tid = tid
        # Once the task has ended, the name of its state: the task itself is not kept alive by its future.
        self._handle: Handle | str | None = handle
        self._files: TaskFiles | None = None

    @property
    def outputs(self) -> list[DataFuture]:
        """The futures of the files the app makes, in the order of ``outputs=``."""
        return [] if self._files is None else list(self._files.outputs)

    @property
    def stdout(self) -> str | DataFuture | None:
        """The file standard output goes to: its path, or its DataFuture if it is staged out; None if not captured."""
        return None if self._files is None else self._files.stdout

    @property
    def stderr(self) -> str | DataFuture | None:
        """The file standard error goes to; see ``stdout``."""
        return None if self._files is None else self._files.stderr

    def task_status(self) -> str:
        """Return the name of the task's state: ``pending``, ``launched``, ``running``, ``exec_done`` ..."""
        handle = self._handle
        # A plain str: the name carries an app and marks of failures, which are not for users.
        if isinstance(handle, str):
            return str(handle)
        return "unsched" if handle is None else handle.status()

    def why(self, timeout_s: float = 2.0) -> Explanation:
        """Say all that keeps the task from being done: print it, or look at its ``causes``.

        Dependencies and their states, what is ahead of it, resources that no worker has, blocks that are pending and
        the scheduler's reason, files being moved, tries that failed; of one that runs where and since when, and of one
        that has ended how. Any thread.

        Args:
            timeout_s: Seconds that an executor may take to answer; an answer that is missing is named as such. With
                0 only what is known at once.
        """
        handle = self._handle
        told = None if self.done() or handle is None or isinstance(handle, str) else handle.why(timeout_s)
        if told is not None:
            return told
        handle = self._handle  # it may have ended meanwhile
        who = f"task {self.tid} ({handle.app})" if isinstance(handle, EndedState) else f"task {self.tid}"
        return explained(self, who, self.task_status(), self.tid)

    def cancel(self, kill: bool = False) -> bool:
        """Cancel the task unless it was reported to have started.

        A cancelled task never starts, also if an executor has it already; its dependents fail with a DependencyError
        whose cause is the cancellation.

        Args:
            kill: Also end the task if it has started. The future is done when the executor has ended it: wait for it.
                What the task still comes to until then is dropped.

        Returns:
            Whether the task is cancelled, or with ``kill`` surely will end so. False if it is done, if it has started
            and ``kill`` is not given, and if its executor cannot end what runs (pools of others) or its outputs are
            being brought out.
        """
        handle = self._handle
        if self.done() or handle is None or isinstance(handle, str):
            return self.cancelled()
        return handle.cancel(kill)

    def running(self) -> bool:
        """Return whether the task was reported to run."""
        return not self.done() and self.task_status() in ("running", "joining")

    def _about_to_wait(self) -> None:
        handle = self._handle
        if handle is not None and not isinstance(handle, str):
            handle.flush()

    def _looked_at(self) -> None:
        handle = self._handle
        if isinstance(handle, Ended):
            handle.see()

    def _why_not(self, timeout: float | None) -> str:
        return in_one_line(self.why, timeout)

    def _cancelled_text(self) -> str:
        return f"task {self.tid} was cancelled"

    def _repr_html_(self) -> str:
        rows = [("state", shown_state(self.task_status()))]
        if self.done() and not self.cancelled():
            error = self.exception()
            rows.append(("result", type(self._result).__name__) if error is None else ("error", one_line(error)))
        return html_table(f"task {self.tid}", rows)

    def _describe(self) -> str:
        return f"tid={self.tid} task={self.task_status()} {super()._describe()}"


class TaskFiles:
    """Futures and names of a task's files; tasks without files have none, which saves memory for each."""

    __slots__ = ("outputs", "stderr", "stdout")

    def __init__(
        self,
        outputs: Sequence[DataFuture],
        stdout: str | DataFuture | None,
        stderr: str | DataFuture | None,
    ) -> None:
        self.outputs = tuple(outputs)
        self.stdout = stdout
        self.stderr = stderr

    def all(self) -> list[DataFuture]:
        """Return the futures of all files that are settled with the task."""
        return [*self.outputs, *(s for s in (self.stdout, self.stderr) if isinstance(s, DataFuture))]
