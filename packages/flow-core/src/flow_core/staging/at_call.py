"""Refusal of files at the call that names them, where no try of the task could ever move them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from flow_core.apps.definition import NO_OPTIONS, AppKind
from flow_core.errors import NoStagingError
from flow_core.files import FILE_TYPES, File, masked
from flow_core.interfaces.staging import Direction

if TYPE_CHECKING:
    from flow_core.apps.definition import CallOptions
    from flow_core.graph.task import Task
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.staging import Staging

_TYPES: frozenset[type] = frozenset(FILE_TYPES)
_MADE = frozenset(("outputs", "stdout", "stderr"))


class Methods(Protocol):
    """Interface to the staging methods of executors. Any thread."""

    def methods(self, executor: Executor) -> Sequence[Staging]:
        """Return the methods of an executor, in the order in which they are asked."""
        ...

    def method(self, executor: Executor, file: File, direction: Direction, who: str) -> Staging | None:
        """Return the first one that can move a file."""
        ...

    def are_own(self, methods: Sequence[Staging]) -> bool:
        """Return whether all methods are Flow's own."""
        ...


def check_call(methods_of: Methods, task: Task, executors: Sequence[Executor]) -> None:
    """Refuse a call that names a file which none of its executors can move. On the thread of the call.

    Looked at are the files that are arguments themselves, or in ``inputs``; those in other things, and what futures
    give, are known when the task is planned. Methods of the user's own are not asked here: they may block.

    Raises:
        NoStagingError: there is one; the message names it and says why.
    """
    # Most calls that have more than plain data: objects of classes, and no files.
    if task.options is NO_OPTIONS and not task.kwargs and _TYPES.isdisjoint(map(type, task.args)):
        return
    if task.app.kind is AppKind.JOIN:  # whose body hands the files on to other apps
        return
    for file, direction in _named(task.args, task.kwargs, task.options):
        # Whether a local file is there is known only when the task starts: another task may make it.
        if file.scheme == "file" and file.kind == "file":
            continue
        first: NoStagingError | None = None
        for executor in executors:
            problem = _problem(methods_of, str(task), executor, file, direction)
            # One executor that can move it is enough, since the task may go there.
            if problem is None:
                break
            first = first or problem
        else:
            if first is not None:
                raise first


def _named(args: tuple[object, ...], kwargs: dict[str, object], options: CallOptions) -> list[tuple[File, Direction]]:
    """Return the files, as far as they are found at once: most calls name none."""
    # By exact type, since this runs at each call.
    given = [value for value in args if type(value) in _TYPES] if type(args) is tuple else []
    if kwargs:
        given += [value for name, value in kwargs.items() if type(value) in _TYPES and name not in _MADE]
        inputs = kwargs.get("inputs")
        if type(inputs) in (list, tuple) and not _TYPES.isdisjoint(map(type, inputs)):  # type: ignore[call-overload]
            given += [value for value in inputs if type(value) in _TYPES]  # type: ignore[attr-defined]  # a list
    named = [(file, Direction.IN) for file in given if isinstance(file, File)]
    for stream in (*options.outputs, options.stdout, options.stderr):
        target = stream[0] if isinstance(stream, tuple) else stream
        if isinstance(target, File):
            named.append((target, Direction.OUT))
    return named


def _problem(
    methods_of: Methods, who: str, executor: Executor, file: File, direction: Direction
) -> NoStagingError | None:
    """Return why an executor can never move a file; None if it can, or if that is not known yet."""
    if direction is Direction.IN and file.kind == "pattern":
        return pattern_as_input(who, file)
    methods = methods_of.methods(executor)
    # Methods of the user's own may block, and this is the thread that calls the app.
    if not methods_of.are_own(methods):
        return None
    method = methods_of.method(executor, file, direction, who)
    if method is None:
        return nothing_moves(who, executor.label, methods, file, direction)
    wrong = method.wrong_with(file, direction)
    return NoStagingError(f"{who}: {masked(file.url)} cannot be moved: {wrong}", masked(file.url)) if wrong else None


def pattern_as_input(who: str, file: File) -> NoStagingError:
    """Return the error of a task that is given a pattern."""
    return NoStagingError(
        f"{who}: {file!r} is among what the task is given, and patterns name outputs: give the files, the Directory "
        "that they are in, or the future of the Glob that another app makes",
        masked(file.url),
    )


_CLASSES = {
    **dict.fromkeys(("http", "https"), "HTTPSeparateTaskStaging()"),
    "ftp": "FTPSeparateTaskStaging()",
    "s3": "S3Staging()",
    "globus": "GlobusStaging(...)",
    "zip": "ZipFileStaging()",
    **dict.fromkeys(("gs", "gcs", "az", "abfs", "sftp", "webdav", "smb", "hdfs", "oci"), "FsspecStaging()"),
}
"""Methods by the schemes of URLs, for messages."""


def nothing_moves(
    who: str, executor: str, methods: Sequence[Staging], file: File, direction: Direction
) -> NoStagingError:
    """Return the error of a task with a file that no method of an executor moves."""
    known = ", ".join(type(method).__name__ for method in methods) or "none"
    way = "bring in" if direction is Direction.IN else "bring out"
    url = masked(file.url)
    what = {"directory": "the directory ", "pattern": "the files that match "}.get(file.kind, "")
    hint = ""
    if file.scheme in ("http", "https") and file.kind != "file":
        hint = (
            " Web servers do not say which files there are in a directory: name each file, or put them into an archive."
        )
    elif direction is Direction.OUT and file.scheme in ("http", "https"):
        hint = " The methods for http bring files out where they are made with upload=True."
    elif file.scheme in _CLASSES:
        hint = f" For {file.scheme}: there is {_CLASSES[file.scheme]} of flow-staging."
    return NoStagingError(
        f"{who}: nothing on executor {executor!r} can {way} {what}{url} (scheme {file.scheme!r}; its staging methods "
        f"are: {known}). Add a method for it to storage_access, together with all the others that are wanted.{hint}",
        url,
    )
