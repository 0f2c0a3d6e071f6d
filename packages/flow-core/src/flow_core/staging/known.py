"""The files of one try of a task: each moved once to each of its places, and no two to one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from flow_core.errors import ConfigurationError
from flow_core.files import File, masked
from flow_core.interfaces.staging import Direction
from flow_core.remote.staged import of_a_task


@dataclass(slots=True)
class KnownFiles:
    """Files of one try of a task, with the places at which it finds them. Used by one thread.

    Attributes:
        who: The task, for messages.
        directory: What the places that are chosen for files are relative to.
    """

    who: str
    directory: str
    _known: dict[tuple[str, str], list[File]] = field(default_factory=dict)
    _listed: dict[tuple[Direction, str, str], set[str]] = field(default_factory=dict)
    _brought: dict[str, str] = field(default_factory=dict)

    def find(self, file: File) -> File | None:
        """Return what the task knows a file as already, at the place that is chosen for it, if one is."""
        # The kind counts as well: a directory and a file may have the same URL.
        found = self._known.get((file.kind, file.url))
        if found is None:
            return None
        chosen = chosen_place(file)
        if chosen is None:
            return found[0]
        wanted = self._place(chosen)
        return next((one for one in found if self._place(one.place) == wanted), None)

    def add(self, file: File, local: File) -> None:
        """Note what the task knows a file as."""
        self._known.setdefault((file.kind, file.url), []).append(local)

    def is_new(self, local: File, direction: Direction) -> bool:
        """Tell whether a file is to be moved that is not on the list yet, where it is then.

        Raises:
            ConfigurationError: another file is to be brought to the same place, or this one out of two places.
        """
        place = self._place(local.place)
        listed = self._listed.setdefault((direction, local.kind, local.url), set())
        if place in listed:
            return False
        if direction is Direction.OUT and listed:
            raise ConfigurationError(
                f"{self.who}: {masked(local.url)} is declared as an output twice, to be made at {listed.pop()} and at "
                f"{place}; give it one local_path"
            )
        # Two files at one place replaced each other without a word before this was asked.
        if direction is Direction.IN and self._brought.setdefault(place, local.url) != local.url:
            raise ConfigurationError(
                f"{self.who}: {masked(local.url)} and {masked(self._brought[place])} have the same local_path, {place}"
                ", and one would replace the other; give each a local_path of its own, or none"
            )
        listed.add(place)
        return True

    def _place(self, path: str) -> str:
        # By text and not by the file system: what is going to be there is not there yet.
        return os.path.normpath(os.path.join(self.directory, path))


def chosen_place(file: File) -> str | None:
    """Return the place that the user chose for a file; that of an earlier task, which is gone by now, is none."""
    path = file.local_path
    return None if path is None or of_a_task(path) else path
