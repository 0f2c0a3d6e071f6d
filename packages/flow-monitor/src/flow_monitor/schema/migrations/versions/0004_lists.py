"""Indexes that find a page of any list of tasks at once, and the run time they sort by."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TASK_COLUMNS = (
    "task_id", "task_func_name", "task_kind", "task_label", "task_status", "task_executor", "task_depends",
    "task_inputs", "task_outputs", "task_stdin", "task_stdout", "task_stderr", "task_hashsum", "task_memoize",
    "task_from_memo", "task_time_invoked", "task_time_running", "task_time_returned", "task_depth", "task_tries",
    "task_fail_count", "task_fail_cost", "task_parent", "task_error", "task_traceback",
)  # fmt: skip
GROUP = ["run_key", "task_func_name", "task_status"]
TEXT = ["run_key", "task_id", "task_label", "task_error", "task_func_name", "task_status", "task_tries", "task_run_time"]


def upgrade() -> None:
    """Add and fill the column, put the new indexes in the place of the old ones.

    What samples say of the network traffic of tasks was never measured until now: it becomes unknown.
    """
    op.drop_index("ix_task_func", "task_rows")
    op.drop_index("ix_task_status", "task_rows")
    op.execute('DROP VIEW "task"')
    op.add_column("task_rows", sa.Column("task_run_time", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE task_rows SET task_run_time = task_time_returned - task_time_running "
        "WHERE task_time_returned IS NOT NULL AND task_time_running IS NOT NULL"
    )
    op.execute(
        "UPDATE resource_rows SET psutil_process_net_sent = NULL, psutil_process_net_received = NULL "
        "WHERE task_id IS NOT NULL"
    )
    op.create_index("ix_task_group", "task_rows", [*GROUP, "task_id"])
    op.create_index("ix_task_sorted", "task_rows", [*GROUP, "task_tries", "task_run_time", "task_id"])
    if op.get_bind().dialect.name == "sqlite":  # PostgreSQL has no room for long texts in an index
        some = sa.text("task_label IS NOT NULL OR task_error IS NOT NULL")
        op.create_index("ix_task_text", "task_rows", TEXT, sqlite_where=some)
    _view([*TASK_COLUMNS, "task_run_time"])


def downgrade() -> None:
    """Drop the indexes of lists and the run time; make the indexes of before again."""
    op.execute('DROP VIEW "task"')
    for name in ("ix_task_group", "ix_task_sorted"):
        op.drop_index(name, "task_rows")
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_task_text", "task_rows")
    op.drop_column("task_rows", "task_run_time")
    op.execute(
        "UPDATE resource_rows SET psutil_process_net_sent = 0, psutil_process_net_received = 0 "
        "WHERE task_id IS NOT NULL"
    )
    op.create_index("ix_task_func", "task_rows", ["run_key", "task_func_name", "task_id"])
    op.create_index("ix_task_status", "task_rows", ["run_key", "task_status", "task_id"])
    _view(TASK_COLUMNS)


def _view(columns: list[str] | tuple[str, ...]) -> None:
    shown = ", ".join(f'r."{column}"' for column in columns)
    op.execute(
        f'CREATE VIEW "task" AS SELECT w.run_id, {shown} FROM "task_rows" r JOIN workflow w ON w.run_key = r.run_key'
    )
