"""Use of resources over time as sums that add up to what tasks used; run times without the waits between tries."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. Of runs that are in the database already, the pages make the sums from samples and tries."""
    sums = ("cores", "memory", "processes", "cores_offset", "memory_offset", "processes_offset")
    op.create_table(
        "usage_sums",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("grouping", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bin_begin", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bin_width", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.Float(), nullable=True) for name in sums),
        sa.ForeignKeyConstraint(["run_id"], ["workflow.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "grouping", "name", "bin_begin"),
    )
    op.add_column("gap", sa.Column("time_first", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE task_rows SET task_run_time = (SELECT sum(y.task_try_time_returned - y.task_try_time_running) "
        "FROM try_rows y WHERE y.run_key = task_rows.run_key AND y.task_id = task_rows.task_id "
        "AND y.task_try_time_running IS NOT NULL AND y.task_try_time_returned IS NOT NULL)"
    )


def downgrade() -> None:
    """Drop the sums of use over time and the first time of gaps."""
    op.drop_column("gap", "time_first")
    op.drop_table("usage_sums")
    op.execute(
        "UPDATE task_rows SET task_run_time = task_time_returned - task_time_running "
        "WHERE task_time_returned IS NOT NULL AND task_time_running IS NOT NULL"
    )
