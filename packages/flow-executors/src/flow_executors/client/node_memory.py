"""Nodes that are held, remembered over runs: a small file beside the runs' directories, which others can edit safely.

The file is the truth for all runs that use it: who takes a node out of it (``flow nodes free``) frees it everywhere.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from flow_core.own_files import open_own

NAME = "held-nodes.json"
KEPT_S = 6 * 3600.0
"""Seconds for which a node stays held without anybody's freeing it: most of what is wrong is mended by then."""
# Bytes that are read, nodes that are kept, characters of a text: none comes near, but the file is on a disk.
_MOST_BYTES, _MOST_NODES, _MOST_TEXT = 1 << 20, 2000, 500
# Seconds that another process has to finish its change.
_LOCK_S = 2.0


@dataclass(frozen=True, slots=True)
class HeldNode:
    """A node that is held.

    Attributes:
        node: Its name.
        executor: Label of the executor whose tasks it gets no more.
        why: What it did.
        since: Since when, in seconds UTC.
        until: Until when.
    """

    node: str
    executor: str
    why: str
    since: float
    until: float


class NodeMemory:
    """The file. Any thread, any process; blocks for a disk.

    Args:
        directory: The directory of the runs.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME

    def entries(self, now: float | None = None) -> list[HeldNode]:
        """Return what is held and has not expired; nothing where there is no file.

        Raises:
            NotOwnFile: the file is another user's, or others may write to it.
            OSError: it cannot be read.
        """
        try:
            with open_own(self.path) as file:
                data = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return []
        try:
            rows = json.loads(data)["nodes"]
            found = [_entry(row) for row in rows[:_MOST_NODES]]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return []  # half written on a full disk, or of a later release: nodes are found out again
        moment = time.time() if now is None else now
        return [one for one in found if one is not None and one.until > moment]

    def add(self, entry: HeldNode) -> None:
        """Remember a node. Raises as ``entries``."""
        self._change(lambda known: [*(one for one in known if _key(one) != _key(entry)), entry])

    def remove(self, nodes: Sequence[str], executor: str | None = None) -> list[HeldNode]:
        """Forget nodes, of one executor or of all; return what was there. Raises as ``entries``."""
        gone: list[HeldNode] = []

        def without(known: list[HeldNode]) -> list[HeldNode]:
            gone.extend(one for one in known if one.node in nodes and executor in (None, one.executor))
            return [one for one in known if one not in gone]

        self._change(without)
        return gone

    def stamp(self) -> tuple[int, int]:
        """Return what changes with the file."""
        try:
            found = os.stat(self.path)
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def _change(self, change: Callable[[list[HeldNode]], list[HeldNode]]) -> None:
        with self._alone():
            known = self.entries()
            rows = [asdict(one) for one in change(known)[-_MOST_NODES:]]
            temporary = self.path.with_name(f".{NAME}.{os.getpid()}.{time.monotonic_ns()}")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "w") as file:
                    json.dump({"version": 1, "nodes": rows}, file, indent=1)
                os.replace(temporary, self.path)
            except BaseException:
                os.unlink(temporary)
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from changing the file meanwhile, as far as the file system can."""
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        break
                time.sleep(0.02)
            yield
        finally:
            os.close(fd)


def _key(entry: HeldNode) -> tuple[str, str]:
    return entry.executor, entry.node


def _entry(row: object) -> HeldNode | None:
    if not isinstance(row, dict):
        return None
    texts = [str(row[name])[:_MOST_TEXT] for name in ("node", "executor", "why")]
    return HeldNode(texts[0], texts[1], texts[2], float(row["since"]), float(row["until"]))
