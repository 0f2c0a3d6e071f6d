"""Data futures: the future of a file that an app makes."""

from __future__ import annotations

from concurrent.futures import Future as StdFuture, InvalidStateError
from typing import TYPE_CHECKING, cast, overload

from flow_core.errors import NotFutureError
from flow_core.files import File, masked
from flow_core.futures.explained import explained, in_one_line, parent_why
from flow_core.futures.lean import CANCELLATION, Future, failure_of, settle, when_done

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from flow_core.interfaces.waiting import Explanation


class DataFuture(Future[File]):
    """Done when the app that makes the file is done; its result is the File. Fails as that app does.

    Of a Glob the result is the list of the Files that match; once that is known the future has a length, and gives the
    files one by one: ``len(future)``, ``future[0]``, ``for file in future``. Before that these raise InvalidStateError.

    Pass it to another app to make an edge of the graph; that app gets the File.

    Attributes:
        tid: Id of the task that makes the file, if known.
    """

    __slots__ = ("_file", "_parent", "tid")

    def __init__(self, fut: StdFuture[Any] | None, file_obj: File | str, tid: int | None = None) -> None:
        """Make the future of one file.

        Args:
            fut: The future of the app that makes the file; None for one that nobody settles.
            file_obj: The file, or its path or URL.
            tid: Id of the task.

        Raises:
            NotFutureError: ``fut`` is no future.
        """
        super().__init__()
        if fut is not None and not isinstance(fut, StdFuture):
            raise NotFutureError(f"DataFuture() needs the future of an app, not {type(fut).__name__} {fut!r}")
        self._file = file_obj if isinstance(file_obj, File) else File(file_obj)
        self._parent = fut
        self.tid = tid
        if fut is not None:
            when_done(fut, self.parent_callback)

    @classmethod
    def of_task(cls, parent: StdFuture[Any], file: File, tid: int) -> DataFuture:
        """Return a future that the kernel settles together with its parent."""
        # Without its parent, so that no callback is added: the kernel settles both under one lock.
        future = cls(None, file, tid)
        future._parent = parent
        return future

    def made(self, names: Sequence[str] | None) -> File | list[File]:
        """Return the result: the file, or for a Glob the list of the files that match, given their names."""
        return self._file if names is None else [self._file.member(name) for name in names]

    def _files(self) -> list[File]:
        """Return the files of a Glob, once they are known."""
        if self._file.kind != "pattern":
            raise TypeError(
                f"{self!r} is of one file: only the future of an output declared as a Glob has a length and files"
            )
        if not self.done():
            raise InvalidStateError(f"{self!r} is not done, so its files are not known yet: wait for result()")
        return cast("list[File]", self.result(timeout=0))

    def __len__(self) -> int:
        return len(self._files())

    def __iter__(self) -> Iterator[File]:
        return iter(self._files())

    @overload
    def __getitem__(self, index: int) -> File: ...

    @overload
    def __getitem__(self, index: slice) -> list[File]: ...

    def __getitem__(self, index: int | slice) -> File | list[File]:
        return self._files()[index]

    def __bool__(self) -> bool:
        return True  # as futures are, though this one may have a length

    @property
    def file_obj(self) -> File:
        """The file, before it exists too."""
        return self._file

    @property
    def filepath(self) -> str:
        """Path of the file here. Raises ValueError for a remote file, which has none here."""
        return self._file.filepath

    @property
    def filename(self) -> str:
        """Last component of the file's path."""
        return self._file.filename

    def parent_callback(self, parent_fu: StdFuture[Any]) -> None:
        """Take over how the parent ended. Called by the parent."""
        # By failure_of, since exception() would count as a look of the user's.
        error = CANCELLATION if parent_fu.cancelled() else failure_of(parent_fu)
        settle([(cast("Future[object]", self), self._file if error is None else None, error)])

    def cancel(self) -> bool:
        """Cancel the app that makes the file; see its ``cancel``."""
        if self._parent is None:
            return super().cancel()
        return self._parent.cancel()

    def running(self) -> bool:
        """Return whether the app that makes the file is known to run."""
        return not self.done() and self._parent is not None and self._parent.running()

    def why(self, timeout_s: float = 2.0) -> Explanation:
        """Say why the app that makes the file is not done yet; see its ``why``."""
        return parent_why(self._parent, timeout_s, self._explained)

    def _explained(self) -> Explanation:
        state = "done" if self.done() else "running" if self.running() else "pending"
        return explained(self, f"the file {masked(self._file.url)}", state, self.tid)

    def _looked_at(self) -> None:
        if isinstance(self._parent, Future):
            self._parent._looked_at()

    def _why_not(self, timeout: float | None) -> str:
        return in_one_line(self.why, timeout)

    def _about_to_wait(self) -> None:
        if isinstance(self._parent, Future):
            self._parent._about_to_wait()

    def _describe(self) -> str:
        return f"file={masked(self._file.url)!r} tid={self.tid} {super()._describe()}"
