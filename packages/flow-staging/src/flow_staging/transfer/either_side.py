"""Base of staging methods that move on the submit side or on the node, by their option ``in_task``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from flow_core.files import File
from flow_core.interfaces.call import TaskStep
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer, Versions
from flow_core.without_effect import warn_of
from flow_staging.transfer.method import InTaskStaging, Mover, SeparateTaskStaging


class EitherSide(Staging):
    """Hands everything on to the method of the side that was chosen. Any thread."""

    _call = ""
    """The expression that makes an equal one."""

    def __init__(self, mover: Mover, *, in_task: bool, threads: int, usual_threads: int, name: str) -> None:
        if in_task and threads != usual_threads:
            told = f"threads={threads!r} has no effect with in_task=True: tasks move their files themselves"
            warn_of(type(self).__name__, [told])
        self.files_on_node = in_task
        self._method = InTaskStaging(mover) if in_task else SeparateTaskStaging(mover, threads=threads, name=name)
        self.refresh = self._method.refresh
        self.makes_directories = self._method.makes_directories
        self.at_once = self._method.at_once

    def can_stage_in(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method fetches."""
        return self._method.can_stage_in(file)

    def can_stage_out(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method sends to."""
        return self._method.can_stage_out(file)

    def wrong_with(self, file: File, direction: Direction) -> str:
        """Return what is wrong with the name of a file, empty if nothing is; asks no server."""
        return self._method.wrong_with(file, direction)

    def pin(self, file: File) -> str:
        """Have all nodes see one version, if it is they that move."""
        return self._method.pin(file)

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | Future[Digests] | None:
        """Move on the submit side, if that is where; does not block."""
        return self._method.stage(transfers)

    def step(self, transfers: Sequence[Transfer]) -> TaskStep | None:
        """Return data that moves on the node, if that is where."""
        return self._method.step(transfers)

    def look(self, files: Sequence[File]) -> Future[Versions] | None:
        """Look at what is on the other side, from this machine; does not block."""
        return self._method.look(files)

    def close(self) -> None:
        """Cut what is still going; returns within 5 s."""
        self._method.close()

    def __repr__(self) -> str:
        return self._call
