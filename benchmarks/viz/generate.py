"""Make a monitoring database of a long run, straight from made-up events, without a log.

    python benchmarks/viz/generate.py OUT.db [--tasks 1000000] [--seed 1]
    python benchmarks/viz/generate.py postgresql://user@host/name

The run has what pages must bear: map-reduce rounds, failures, retries, files of some tasks, samples of nodes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import Engine

from flow_core.interfaces.events import Event
from flow_monitor.log.reader import Position
from flow_monitor.project.projection_core import Projection
from flow_monitor.project.rebuild import upgrade
from flow_monitor.project.store import Progress, RunStore
from flow_monitor.schema.engine import sqlite_path, writing_engine
from flow_monitor.testing.synthetic import SyntheticRun

BATCH = 50_000


def generate(endpoint: str, run: SyntheticRun) -> tuple[int, int]:
    """Write a run into a database; return the number of events, and of bytes of the database."""
    upgrade(endpoint)
    engine = writing_engine(endpoint)
    store, fold = RunStore(engine, run.run_id, "none"), Projection(run.run_id)
    before = store.resume()
    batch: list[Event] = []
    for event in run.events():
        batch.append(event)
        if len(batch) == BATCH:
            before = _write(store, fold, before, batch)
            batch = []
    before = _write(store, fold, before, batch)
    store.finish(died=True)
    engine.dispose()  # what is in the log of a SQLite file comes into it
    return before.events, _size(engine)


def _size(engine: Engine) -> int:
    path = sqlite_path(engine.url)
    if path is not None:
        return path.stat().st_size
    with engine.connect() as connection:
        size = int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    engine.dispose()
    return size


def _write(store: RunStore, fold: Projection, before: Progress, batch: list[Event]) -> Progress:
    fold.fold(batch)
    after = Progress(Position(before.position.offset + 1), before.events + len(batch))
    store.apply(fold.take(), before, after, time.time_ns())
    return after


def main() -> None:
    """Generate as told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("database", help="a SQLite file, or the URI of a database")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run = SyntheticRun(
        f"long-{options.tasks}-{options.seed}", tasks=options.tasks, width=options.width, nodes=8, workers=8,
        fail_rate=0.02, samples=4, seed=options.seed, name="long.py",
    )  # fmt: skip
    began = time.perf_counter()
    database = options.database
    events, size = generate(database if "://" in database else f"sqlite:///{Path(database).absolute()}", run)
    took = time.perf_counter() - began
    print(f"{events} events, {size / 1e6:.0f} MB in {took:.0f} s")


if __name__ == "__main__":
    main()
