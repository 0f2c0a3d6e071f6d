"""Table of the nodes that are held."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; of runs that are in the database already nothing is known."""
    op.create_table(
        "node_hold",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("executor", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("time_held", "time_freed")),
        sa.ForeignKeyConstraint(["run_id"], ["workflow.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "executor", "hostname"),
    )


def downgrade() -> None:
    """Drop the table of held nodes."""
    op.drop_table("node_hold")
