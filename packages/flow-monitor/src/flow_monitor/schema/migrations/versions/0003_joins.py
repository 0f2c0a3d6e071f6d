"""Tables of joins: tasks that join tasks made and wait for, edges of the graph that are no dependencies."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the view on the long one."""
    op.create_table(
        "joined_rows",
        sa.Column("run_key", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("waits_for", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_key", "task_id"], ["task_rows.run_key", "task_rows.task_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_key", "task_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "app_join",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("from_app", sa.Text(), nullable=False),
        sa.Column("to_app", sa.Text(), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=True),
        sa.Column("awaited", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["workflow.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "from_app", "to_app"),
    )
    op.execute(
        'CREATE VIEW "joined" AS SELECT w.run_id, r."task_id", r."waits_for" '
        'FROM "joined_rows" r JOIN workflow w ON w.run_key = r.run_key'
    )


def downgrade() -> None:
    """Drop the two tables of joins."""
    op.execute('DROP VIEW "joined"')
    op.drop_table("app_join")
    op.drop_table("joined_rows")
