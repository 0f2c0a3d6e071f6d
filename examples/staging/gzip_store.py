"""A staging method of one's own: files named ``gz:///NAME`` live compressed in a store, and apps see them plain.

Run it: ``python gzip_store.py``. It makes a store in the current directory, squeezes a text into it, and lets one app
count the words of the file and another write the longest word back into the store.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import flow_core as flow
from flow_core import File
from flow_core.executors.threads import ThreadPoolExecutor as Threads
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_core.staging.noop import NoOpFileStaging


class GzipStore(Staging):
    """Brings ``gz:///NAME`` in from a directory of compressed files, and out into it."""

    def __init__(self, store: str | Path) -> None:
        self.store, self.pool = Path(store), ThreadPoolExecutor(2)

    def can_stage_in(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme == "gz"

    can_stage_out = can_stage_in

    def stage(self, transfers: Sequence[Transfer]) -> Future[None]:
        """Move the files of one task on a thread: this call must not block."""
        return self.pool.submit(self._move, list(transfers))

    def _move(self, transfers: list[Transfer]) -> None:
        for each in transfers:
            kept, local = self.store / f"{each.file.filename}.gz", each.local_path
            coming = each.direction is Direction.IN
            source, target = (kept, local) if coming else (local, kept)
            read, write = (gzip.open, open) if coming else (open, gzip.open)
            local.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            with read(source, "rb") as plain, write(part, "wb") as copy:
                shutil.copyfileobj(plain, copy)
            os.replace(part, target)  # whole, or not there


@flow.python_app
def count_words(inputs: Sequence[File] = ()) -> int:
    """Count the words of a file, which is plain here."""
    return len(Path(inputs[0]).read_text().split())


@flow.python_app
def longest_word(inputs: Sequence[File] = (), outputs: Sequence[File] = ()) -> None:
    """Write the longest word of one file into another."""
    Path(outputs[0]).write_text(max(Path(inputs[0]).read_text().split(), key=len))


def main() -> None:
    """Fill a store and use it."""
    store = Path("store")
    store.mkdir(exist_ok=True)
    with gzip.open(store / "text.gz", "wt") as stream:
        stream.write("Files named by URL are where the app needs them, compressed or not")
    config = flow.Config(
        executors=[Threads(max_threads=2, working_dir="work", storage_access=[NoOpFileStaging(), GzipStore(store)])]
    )
    with flow.load(config):
        text, word = File("gz:///text"), File("gz:///word")
        print(count_words(inputs=[text]).result(), "words")
        longest_word(inputs=[text], outputs=[word]).result()
    with gzip.open(store / "word.gz", "rt") as stream:
        print("the longest is", stream.read())


if __name__ == "__main__":
    main()
