"""Staging methods in the older style (``stage_in``, ``stage_out``, ``replace_task``) as staging methods of Flow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from flow_core.errors import StagingError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext, TaskStep
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_staging.transfer.method import on_node

_inner: ContextVar[Callable[[], object]] = ContextVar("flow_old_style_inner")


class OldStyleFile:
    """A file as an older staging method sees it: it may set ``local_path``.

    Attributes:
        url: Its URL, or path.
        scheme: Scheme of the URL; ``file`` for paths.
        netloc: Server of the URL.
        path: Path of the URL.
        filename: Last part of the path.
        local_path: Where the task reads or writes it.
    """

    def __init__(self, file: File, local_path: str | None) -> None:
        self.url = file.url
        self.scheme = file.scheme
        self.netloc = file.netloc
        self.path = file.path
        self.filename = file.filename
        self.local_path = local_path

    @property
    def filepath(self) -> str:
        """Path of the file on the machine at hand."""
        return self.path if self.local_path is None else self.local_path

    def cleancopy(self) -> OldStyleFile:
        """Return one of the same URL whose place is not known."""
        twin = OldStyleFile.__new__(OldStyleFile)
        twin.__dict__.update(self.__dict__, local_path=None)
        return twin

    def __repr__(self) -> str:
        return f"<OldStyleFile {self.url} local_path={self.local_path!r}>"


class OldStyleStaging(Staging):
    """Moves files by a staging method in the older style.

    On the submit side its ``stage_in(manager, executor, file, None)`` and ``stage_out(manager, executor, file, done)``
    are called, each of which returns a future or None. With ``in_task`` it is its ``replace_task`` and
    ``replace_task_stage_out(manager, executor, file, func)``, each of which returns a function that is run in the place
    of ``func``. ``file.local_path`` is where the task expects the file; where ``stage_in`` sets another one a link
    leads there.

    Attributes:
        provider: The older method.
        of_users: True: what it calls is the user's, which may raise anything, or hang.
    """

    of_users = True

    def __init__(self, provider: Any, manager: object = None, in_task: bool = False) -> None:
        """Take the older method.

        Args:
            provider: It, with ``can_stage_in(file)``, ``can_stage_out(file)`` and the methods named above.
            manager: What it gets as its first argument, such as an object with ``dfk``; pickled with ``in_task``, if it
                is kept.
            in_task: Whether files are moved where the task runs, by ``replace_task``.
        """
        self.provider = provider
        self._manager = manager
        self._in_task = in_task
        self.files_on_node = in_task

    def can_stage_in(self, file: File) -> bool:
        """Tell whether the older method can bring the file in."""
        return bool(self.provider.can_stage_in(OldStyleFile(file, file.local_path)))

    def can_stage_out(self, file: File) -> bool:
        """Tell whether the older method can bring the file out."""
        return bool(self.provider.can_stage_out(OldStyleFile(file, file.local_path)))

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | None:
        """Have the older method move the files; does not block, if it does not."""
        moved: Future[None] = Future()
        files = [OldStyleFile(each.file, str(each.local_path)) for each in transfers]
        futures = [self._begin(each, file) for each, file in zip(transfers, files, strict=True)]
        waiting = [future for future in futures if future is not None]

        def ended(_: object) -> None:
            if moved.set_running_or_notify_cancel():
                _settle(moved, waiting, transfers, files)

        if not waiting:
            ended(None)
        once = _Once(len(waiting), ended)
        for future in waiting:
            future.add_done_callback(once)
        return moved

    def _begin(self, transfer: Transfer, file: OldStyleFile) -> Future[Any] | None:
        if transfer.direction is Direction.IN:
            future = self.provider.stage_in(self._manager, transfer.executor, file, None)
        else:
            done: Future[None] = Future()  # of the app, which has ended well when its files are brought out
            done.set_result(None)
            future = self.provider.stage_out(self._manager, transfer.executor, file, done)
        if future is None or callable(getattr(future, "add_done_callback", None)):
            return future  # type: ignore[no-any-return]
        raise StagingError(
            f"{type(self.provider).__name__}.stage_{transfer.direction.value} returned {type(future).__name__}, which "
            f"is neither a future nor None, for {transfer.file.url}",
            transfer.file.url,
        )

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        """Return the functions by which the older method replaces the task's own, for the node; None without."""
        if not self._in_task:
            return None
        chain: Callable[..., object] = call_task
        files = []
        for each in transfers:
            incoming = each.direction is Direction.IN
            replace = self.provider.replace_task if incoming else self.provider.replace_task_stage_out
            files.append(file := OldStyleFile(each.file, str(each.local_path)))
            replaced = replace(self._manager, each.executor, file, chain)
            if not callable(replaced):
                method = "replace_task" if incoming else "replace_task_stage_out"
                raise StagingError(
                    f"{type(self.provider).__name__}.{method} returned {type(replaced).__name__} and no function for "
                    f"{each.file.url}: with in_task=True nothing else moves it",
                    each.file.url,
                )
            chain = replaced
        # Together, so that the functions see the very files whose places are set on the node.
        return ReplacedStep(cloudpickle.dumps((chain, files)), tuple(transfers))

    def __repr__(self) -> str:
        return f"OldStyleStaging({self.provider!r}, in_task={self._in_task})"


@dataclass(frozen=True, slots=True)
class ReplacedStep:
    """The functions that an older staging method has put around a task, as they travel."""

    pickled: bytes
    transfers: tuple[Transfer, ...]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Call the outermost of them; the innermost calls the task."""
        chain, files = cloudpickle.loads(self.pickled)
        for transfer, file in zip(self.transfers, files, strict=True):
            file.local_path = str(on_node(transfer, where).local_path)
            os.makedirs(os.path.dirname(file.local_path) or ".", exist_ok=True)
        token = _inner.set(inner)
        try:
            return chain()
        finally:
            _inner.reset(token)


def call_task(*_args: object, **_kwargs: object) -> object:
    """Call the task itself; what an older method takes for its function."""
    return _inner.get()()


class _Once:
    """Calls something when it was called a number of times."""

    def __init__(self, times: int, then: Callable[[object], None]) -> None:
        self._left = [None] * times
        self._then = then

    def __call__(self, given: object) -> None:
        self._left.pop()  # in one step of the interpreter: several threads may end futures at once
        if not self._left:
            self._then(given)


def _settle(
    moved: Future[None], futures: Sequence[Future[Any]], transfers: Sequence[Transfer], files: Sequence[OldStyleFile]
) -> None:
    try:
        for future in futures:
            future.result(0)
        for transfer, file in zip(transfers, files, strict=True):
            _link(transfer, file)
    except BaseException as error:
        moved.set_exception(error)
    else:
        moved.set_result(None)


def _link(transfer: Transfer, file: OldStyleFile) -> None:
    """Have a file that came to another place found where the task expects it."""
    wanted = str(transfer.local_path)
    if transfer.direction is Direction.OUT or file.local_path in (None, wanted):
        return
    there = Path(str(file.local_path)).absolute()
    if not there.exists():
        raise StagingError(f"{transfer.file.url} was to be brought to {there}, and is not there", transfer.file.url)
    os.symlink(there, wanted)
