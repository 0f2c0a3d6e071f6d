"""Digests of files on disk, and the step around a task that looks whether its files have those that were stated."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from flow_core.errors import StagingError, WrongDigest
from flow_core.folders import plain_file
from flow_core.interfaces.call import NodeContext

_CHUNK = 1 << 20  # bytes; large enough that Python's share vanishes, small enough to be interrupted soon


def digest_of(path: str | os.PathLike[str], algorithm: str, check: Callable[[], object] | None = None) -> str:
    """Return the digest of a file's content as ``algorithm:digits``.

    Args:
        path: The file.
        algorithm: Name as hashlib knows it.
        check: Called between pieces of the file; what it raises ends the reading.

    Raises:
        OSError: it cannot be read.
    """
    from hashlib import new  # loads OpenSSL, which workers need not

    digest = new(algorithm, usedforsecurity=False)
    # The opener waits for no pipe: one at the place of a file would hang for as long as nobody writes to it.
    with open(path, "rb", opener=plain_file) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if check is not None:
                check()
    return f"{algorithm}:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Stated:
    """A file of which is stated what it holds.

    Attributes:
        path: Where it is.
        url: As the user named it, without password.
        digest: Digest of its content, as ``algorithm:digits``.
        directory: What a relative path is relative to; empty for the directory that the task runs in.
    """

    path: str
    url: str
    digest: str
    directory: str = ""

    @property
    def place(self) -> str:
        """The path from where the task runs."""
        return os.path.join(self.directory, self.path)


@dataclass(frozen=True, slots=True)
class CheckDigests:
    """Fails the task if its files do not hold what was stated: inputs before its function runs, outputs after it.

    Attributes:
        task_id: The task.
        app: Name of the app.
        inputs: The inputs.
        outputs: The outputs; another step reports those that are not there.
    """

    task_id: int
    app: str
    inputs: tuple[Stated, ...]
    outputs: tuple[Stated, ...]

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Look, run ``inner``, look. Raises WrongDigest, or StagingError naming a file that cannot be read."""
        for file in self.inputs:
            try:
                self._check(file, "was not started: its input", where)
            except WrongDigest as error:
                # No other try could change an input, so none is taken. Another try may well make the right output.
                error.final = True
                raise
        result = inner()
        for file in self.outputs:
            if os.path.exists(file.place):
                self._check(file, "did not make what was stated: its output", where)
        return result

    def _check(self, file: Stated, what: str, where: NodeContext) -> None:
        who = f"task {self.task_id} ({self.app}) {what} {file.url}{f' on {where.node}' if where.node else ''}"
        try:
            found = digest_of(file.place, file.digest.partition(":")[0])
        except OSError as error:
            said = f"cannot be read, and so not be compared with its digest: {error.strerror or error}"
            raise StagingError(f"{who} {said}", file.url) from error
        if found != file.digest:
            raise WrongDigest(f"{who} has the digest {found}, not {file.digest}", file.url, file.digest, found)
