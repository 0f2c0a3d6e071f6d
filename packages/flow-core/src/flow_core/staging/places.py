"""Where a task finds a file that is brought to it."""

from __future__ import annotations

import os
import threading
from hashlib import blake2b
from pathlib import Path

from flow_core.files import File

_LONGEST_NAME = 200


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
    """Gives each URL its own path in each working directory: two files of one name never meet. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[Path, str] = {}

    def path(self, file: File, working_dir: str | None) -> Path:
        """Return the path of a remote file: by its own name, or one like it if that is taken."""
        folder = Path(working_dir) if working_dir else Path()
        name = safe_name(file)
        with self._lock:
            if self._taken.setdefault(folder / name, file.url) == file.url:
                return folder / name
        stem, dot = os.path.splitext(name)
        return folder / f"{stem}-{_digest(file.url)}{dot}"


def _digest(url: str) -> str:
    return blake2b(url.encode(errors="surrogatepass"), digest_size=6).hexdigest()
