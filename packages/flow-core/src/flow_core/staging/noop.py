"""Files that are already where the task is: local paths and ``file:`` URLs on a shared or local file system."""

from __future__ import annotations

from flow_core.files import File
from flow_core.interfaces.staging import Staging


class NoOpFileStaging(Staging):
    """Leaves local files where they are; the first of the default methods."""

    # Nothing moves, so directories and patterns are as easy as files.
    moves = ("file", "directory", "pattern")

    def can_stage_in(self, file: File) -> bool:
        """Tell whether the file is local."""
        return file.scheme == "file"

    def can_stage_out(self, file: File) -> bool:
        """Tell whether the file is local."""
        return file.scheme == "file"

    def __repr__(self) -> str:
        return "NoOpFileStaging()"
