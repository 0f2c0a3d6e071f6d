"""Sums that the pages of long runs need: when tries of each app ran, how many each manager ran."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; of runs that are in the database already the pages go on reading the tries."""
    op.create_table(
        "app_activity",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("task_func_name", sa.Text(), nullable=False),
        sa.Column("bin_begin", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bin_width", sa.BigInteger(), nullable=True),
        sa.Column("started", sa.BigInteger(), nullable=True),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("start_offsets", sa.BigInteger(), nullable=True),
        sa.Column("end_offsets", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["workflow.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "task_func_name", "bin_begin"),
    )
    op.add_column("node", sa.Column("tries_ended", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drop the table of activity and the number of tries of managers."""
    op.drop_column("node", "tries_ended")
    op.drop_table("app_activity")
