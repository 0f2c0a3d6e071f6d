"""A workflow for tests: it proves that all nodes of all blocks work at the same time, and that no job is left."""

from __future__ import annotations

import os
from pathlib import Path

import flow_core as flow
from flow_core import Config, bash_app, python_app
from flow_executors import HighThroughputExecutor
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.ledger import JobLedger

PATIENCE_S = 90


@python_app
def meet(place: str, guests: int) -> tuple[str, str, str]:
    """Wait until so many run at once; return the block, manager and host this runs on."""
    import os
    import time
    import uuid

    os.makedirs(place, exist_ok=True)
    open(os.path.join(place, uuid.uuid4().hex), "w").close()
    while len(os.listdir(place)) < guests:
        time.sleep(0.02)
    return os.environ["FLOW_WORKER_BLOCK_ID"], os.environ["FLOW_WORKER_POOL_ID"], os.uname().nodename


@python_app
def square(x: int) -> int:
    return x * x


@bash_app
def count_lines(text: str, stdout: str = "") -> str:
    return f"printf '%s\\n' {text} | wc -l"


@python_app
def total(inputs: list[int] = []) -> int:
    return sum(inputs)


def run_workflow(
    provider: ExecutionProvider, folder: Path, *, blocks: int, nodes: int, **options: object
) -> list[tuple[str, str, str]]:
    """Run it with one worker a node; return where the meeting's tasks ran, all at the same time."""
    given: dict[str, object] = {"max_workers": 1, "cores_per_worker": 1, "heartbeat_period": 1, **options}
    executor = HighThroughputExecutor(label="htex", provider=provider, **given)  # type: ignore[arg-type]  # checked
    config = Config(executors=[executor], run_dir=str(folder / "runinfo"), strategy="none")
    with flow.load(config):
        met = [meet(str(folder / "meeting"), blocks * nodes) for _ in range(blocks * nodes)]
        numbers = total(inputs=[square(x) for x in range(100)])
        lines = count_lines("a b c", stdout=str(folder / "lines"))
        places = [future.result(timeout=PATIENCE_S) for future in met]
        assert numbers.result(timeout=PATIENCE_S) == sum(x * x for x in range(100))
        assert lines.result(timeout=PATIENCE_S) == 0
    assert (folder / "lines").read_text().strip() == "3"
    assert JobLedger(Path(os.environ["FLOW_JOBS_LEDGER"])).open_entries() == []
    assert len({manager for _, manager, _ in places}) == blocks * nodes
    return places
