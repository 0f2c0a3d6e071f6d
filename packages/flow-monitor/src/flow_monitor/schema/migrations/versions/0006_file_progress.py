"""Table of the progress of files that move for long."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; of runs that are in the database already nothing is known."""
    op.create_table(
        "file_progress",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("timestamp", "moved", "total")),
        sa.Column("speed", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["workflow.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "task_id", "url", "direction"),
    )


def downgrade() -> None:
    """Drop the table of progress."""
    op.drop_table("file_progress")
