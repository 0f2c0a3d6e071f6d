"""Where a task finds a file that is brought to it."""

from __future__ import annotations

import os
import threading
from hashlib import blake2b
from pathlib import Path

from flow_core.files import File

_LONGEST_NAME = 200
_FOLDER = "staged"


def safe_name(file: File) -> str:
    """Return a file name for a file known by its URL: one component, which leads nowhere else."""
    name = file.filename.replace("\0", "").replace("/", "_")
    if name in ("", ".", ".."):
        name = f"file-{_digest(file.url)}"
    if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
        stem, dot = os.path.splitext(name)
        name = f"{stem[:100]}-{_digest(file.url)}{dot[:20]}"
    return name


class Places:
    """Gives each URL its own path in each working directory: two files of one name never meet. Any thread.

    Without a working directory files go to ``staged`` in the run's directory, where they meet no file of the user.
    """

    def __init__(self, run_dir: Path | None = None) -> None:
        """Take the run's directory; None means the current directory."""
        self._here = Path() if run_dir is None else run_dir / _FOLDER
        self._on_node = _as_seen_from_a_node(self._here)
        self._lock = threading.Lock()
        self._taken: dict[Path, str] = {}

    def path(self, file: File, working_dir: str | None, *, on_node: bool = False) -> Path:
        """Return the path of a remote file: by its own name, or one like it if that is taken.

        Args:
            file: The file.
            working_dir: That of the executor, if it has one.
            on_node: The file is moved by the node, which may not have the run's directory.
        """
        folder = Path(working_dir) if working_dir else self._on_node if on_node else self._here
        name = safe_name(file)
        with self._lock:
            if self._taken.setdefault(folder / name, file.url) == file.url:
                return folder / name
        stem, dot = os.path.splitext(name)
        return folder / f"{stem}-{_digest(file.url)}{dot}"


def _as_seen_from_a_node(folder: Path) -> Path:
    """Return a folder below wherever a task runs: the same one, where that is the current directory."""
    try:
        return folder.relative_to(Path.cwd()) if folder.is_absolute() else folder
    except (ValueError, OSError):
        return Path(f"{_FOLDER}-{_digest(str(folder))}")


def _digest(url: str) -> str:
    return blake2b(url.encode(errors="surrogatepass"), digest_size=6).hexdigest()
