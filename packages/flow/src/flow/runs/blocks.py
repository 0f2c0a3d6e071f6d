"""Blocks of a run: asked of its script while it goes on, else read from its database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flow.runs.find import Run
from flow.runs.tasks import NothingRecorded
from flow_core.kernel.live import ask


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block in a list; ``workers`` and ``age_s`` (seconds) are None where not known."""

    executor: str
    block: str
    job_id: str
    state: str
    reason: str
    workers: int | None = None
    age_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def list_blocks(run: Run, database: str | None) -> list[BlockRow]:
    """Return all blocks of a run.

    Raises:
        RunNotLive: its script does not answer.
        MonitorError: the run has ended, and its database cannot be read.
        NothingRecorded: the run has ended, and had no monitoring.
    """
    if run.live:
        return [
            BlockRow(
                executor=one["label"],
                block=block["block"],
                job_id=block["job_id"],
                state=block["state"],
                reason=block["reason"],
                workers=block["workers"],
                age_s=block["age_s"],
            )
            for one in ask(run.path, "status")["executors"]
            for block in one.get("block_list", ())
        ]
    if not run.has_database(database):
        raise NothingRecorded(
            f"which blocks run {run.path} had is not recorded, and its script has ended: its flow.log names those of "
            "its executors (flow logs); with Config(monitoring=MonitoringHub()) they would be in a database"
        )
    from flow.runs.database import recorded
    from flow_monitor.queries.blocks import blocks

    with recorded(run, database) as found:
        rows = blocks(found.connection, found.run_id)
    return [BlockRow(one.executor, one.block, one.job_id, one.status, one.reason) for one in rows]
