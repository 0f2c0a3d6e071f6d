"""Directories of tries for staged files: where a task finds what is brought to it, and makes what is taken away."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

from flow_core.errors import StagingError
from flow_core.files import File
from flow_core.guard import is_a
from flow_core.remote.same_names import folded
from flow_core.remote.staged import Claim, ForeignDirectory, claim, remove, reserved, tidy
from flow_core.staging.file_work import BackgroundFileWork

_LONGEST_NAME = 200  # bytes; below the usual limit of 255
_DEPTH = 8  # levels of containers in which a result is searched for files
_FEW = 8  # files; that many are removed by name, and of more the directory is listed
_GATHER_S = 0.05  # seconds; directories of tasks are removed together with those of others that end meanwhile


def safe_name(file: File) -> str:
    """Return a file name for a file known by its URL: one component, which leads nowhere else."""
    name = file.filename.replace("\0", "").replace("/", "_")
    if name in ("", ".", ".."):
        name = f"file-{_digest(file.url)}"
    if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
        stem, dot = os.path.splitext(name)
        name = f"{stem[:100]}-{_digest(file.url)}{dot[:20]}"
    return name


class TryPaths:
    """The directories of one try of one task: files of other tasks, tries and runs are never in them.

    Used by one thread. A directory is on the submit side's file system, or on the node.

    Attributes:
        there: The directories on the node, which are made and removed there.
    """

    def __init__(self, places: StagedPaths, task_id: int, number: int) -> None:
        self._places = places
        # A try has a directory of its own: an earlier one may still be writing somewhere.
        self._name = str(task_id) if number == 1 else f"{task_id}-{number}"
        self._here: dict[str, str] = {}
        self.there: dict[str, str] = {}
        self._taken: dict[str, str] = {}

    def here(self, home: str | None) -> str:
        """Return the directory for what the submit side moves, below this home or else the run's directory."""
        folder = self._here.get(home or "")
        if folder is None:
            # Joined as text and not by pathlib, which showed in the CPU time of small files.
            folder = self._here[home or ""] = f"{self._places.root(home)}/{self._name}"
        return folder

    def on_node(self, home: str | None) -> str:
        """Return the directory for what the node moves, below this home or else where the task runs."""
        folder = self.there.get(home or "")
        if folder is None:
            name = f"{self._places.token}-{self._name}"
            folder = self.there[home or ""] = os.path.join(self._places.node_root(home), name)
        return folder

    def path(self, folder: str, file: File) -> str:
        """Return the path of a file in a directory: by its own name, in a directory of its own if that is taken."""
        name = f"files-{_digest(file.url)}" if file.kind == "pattern" else safe_name(file)
        path = f"{folder}/{name}"
        # Two files of the same name from different places; or of two names that the file system may take for one.
        key = folded(path)
        if key in self._taken:
            path = f"{folder}/{_digest(file.url)}/{name}"
            key = folded(path)
        self._taken[key] = path
        return path

    def take_back(self) -> None:
        """Have the submit side remove what was to be on the node: it moves files of this directory itself."""
        self._here.update((f"node {home}", folder) for home, folder in self.there.items())
        self.there.clear()

    def known(self) -> Sequence[str]:
        """Return the files that were given paths, if they are few."""
        return tuple(self._taken.values()) if len(self._taken) <= _FEW else ()

    def all_here(self) -> list[str]:
        """Return the directories on the submit side, absolute."""
        return [os.path.abspath(folder) for folder in self._here.values()]

    def hold(self, value: object) -> bool:
        """Tell whether a result names a file in a directory on the submit side: by its path, or as a File."""
        return _names_one_of(value, tuple(f"{folder}{os.sep}" for folder in self.all_here()), _DEPTH)


def _names_one_of(value: object, folders: tuple[str, ...], depth: int) -> bool:
    if is_a(value, File):
        value = value.local_path
    if is_a(value, str) or is_a(value, Path):
        return os.path.abspath(value).startswith(folders)
    if depth == 0 or not (is_a(value, list) or is_a(value, tuple) or is_a(value, dict)):
        return False
    items = value.values() if is_a(value, dict) else value
    return any(_names_one_of(item, folders, depth - 1) for item in items)


class StagedPaths:
    """Gives each try of each task directories of its own, and removes them when they are not needed. Any thread.

    Below each home (the working directory of an executor, say) this run has one directory, claimed on that disk, so
    that other runs, other processes, and other spellings of the same directory never share it.

    Attributes:
        token: Name of this run's directories: random, so that no run on any machine has the same.
        seen_from_nodes: The home of files that nodes move for executors without a working directory.
        tasks: Unfinished tasks that have directories, with the number of their tries and the places of the last one.
            To be read only.
    """

    def __init__(self, run_dir: Path | None = None) -> None:
        """Take the run's directory; None means the current directory."""
        # Random, since runs of several machines may share a working directory.
        self.token = os.urandom(6).hex()
        # Kept: a relative directory means where the script was when the run began, wherever it goes later.
        self._base = _here()
        self._run_dir = Path() if run_dir is None else run_dir
        self.seen_from_nodes = str(_as_seen_from_a_node(self._run_dir))
        self._lock = threading.Lock()
        self._roots: dict[str, str] = {}
        self._by_home: dict[str, str] = {}
        self._claims: list[Claim] = []
        self._of_nodes: set[str] = set()
        self.tasks: dict[int, tuple[int, TryPaths]] = {}
        self._file_work = BackgroundFileWork(gather_s=_GATHER_S)
        self._tidied = False

    def begin(self, task_id: int) -> TryPaths:
        """Return the places of a new try of a task. What an earlier try has is removed: nothing of it counts."""
        with self._lock:
            number, before = self.tasks.get(task_id, (0, None))
            places = TryPaths(self, task_id, number + 1)
            self.tasks[task_id] = number + 1, places
        if before is not None:
            self._remove(before)
        return places

    def root(self, home: str | None) -> str:
        """Return the directory of this run below a home, claimed on its disk when first asked for.

        Where it cannot be made nothing is raised here: the methods that are to write there raise what is wrong.

        Raises:
            StagingError: another user has made it.
        """
        root = self._by_home.get(home or "")  # each task asks
        if root is not None:
            return root
        folder = self.absolute(home if home else str(self._run_dir))
        if not home:
            self._tidy_earlier_runs()
        with self._lock:
            root = self._roots.get(folder)
            if root is None:
                root = self._roots[folder] = self._claimed(folder)
            self._by_home[home or ""] = root
        return root

    def node_root(self, home: str | None) -> str:
        """Return the reserved directory of nodes below a home, or else below where tasks run."""
        folder = reserved(home or self.seen_from_nodes)
        if not home:
            self._tidy_earlier_runs()
        self._of_nodes.add(folder)
        return str(Path(folder))

    def absolute(self, path: str) -> str:
        """Return a path of the submit side, a relative one as meant where the script was when the run began.

        So it leads to the same file wherever the script and its workers go meanwhile.
        """
        return os.path.join(self._base, path)

    def _tidy_earlier_runs(self) -> None:
        """Have removed, once, what killed processes left in the directories of other runs, where no later run looks."""
        with self._lock:
            first, self._tidied = not self._tidied, True
        if first and self._run_dir.name.isdigit():
            self._file_work.do(partial(_tidy_beside, self.absolute(str(self._run_dir))))

    def _claimed(self, folder: str) -> str:
        number = len(self._roots)
        # Two homes may be the same directory by other names; a second claim there needs another name.
        path = str(Path(reserved(folder), self.token if not number else f"{self.token}.{number}"))
        try:
            self._claims.append(claim(path))
        except ForeignDirectory as error:
            raise StagingError(f"files of tasks cannot be put into {error.filename}: {error.strerror}") from error
        except OSError:
            pass
        return path

    def ended(self, task_id: int, value: object = None) -> None:
        """Remove the directories of a task that has ended, but those that its result names: these stay for the run."""
        with self._lock:
            _, places = self.tasks.pop(task_id, (0, None))
        # A result that names a file there would lead to nothing.
        if places is not None and not places.hold(value):
            self._remove(places)

    def _remove(self, places: TryPaths) -> None:
        for folder in places.all_here():
            self._file_work.do(partial(_removed, folder, places.known()))

    def aside(self, errand: Callable[[], object]) -> None:
        """Have work on files done by the background thread; it must not raise. Any thread; never blocks."""
        self._file_work.do(errand)

    def close(self) -> None:
        """Remove all directories of this run; returns within some seconds. Idempotent."""
        # What is being removed first: a claim is released with all that is in its directory.
        self._file_work.close()
        with self._lock:
            claims, self._claims = self._claims, []
            self.tasks.clear()
            of_nodes, self._of_nodes = self._of_nodes, set()
        for each in claims:
            each.release()
        for folder in of_nodes:  # what killed workers of this machine left
            tidy(self.absolute(folder))


def _removed(folder: str, known: Sequence[str]) -> None:
    """Remove a directory of a task, in which as a rule there are just the files that were brought. Never raises."""
    try:
        inside = [path for path in known if os.path.dirname(path) == folder]
        if inside and stat.S_ISDIR(os.lstat(folder).st_mode):  # each call of the system may cost the interpreter
            for path in inside:
                os.unlink(path)
            os.rmdir(folder)
            return
    except OSError:
        pass
    remove(folder)


def _tidy_beside(run_dir: str) -> None:
    """Tidy the reserved directories in directories beside one that are called by numbers, too. Never raises."""
    try:
        with os.scandir(os.path.dirname(run_dir)) as others:
            runs = [other.path for other in others if other.name.isdigit() and other.path != run_dir]
    except OSError:
        return
    for run in runs:
        folder = reserved(run)
        try:
            status = os.lstat(folder)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            tidy(folder)


def _as_seen_from_a_node(folder: Path) -> Path:
    """Return a folder below wherever a task runs: the same one, where that is the current directory."""
    try:
        return folder.relative_to(Path.cwd()) if folder.is_absolute() else folder
    except (ValueError, OSError):
        return Path()


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _digest(url: str) -> str:
    return blake2b(url.encode(errors="surrogatepass"), digest_size=6).hexdigest()
