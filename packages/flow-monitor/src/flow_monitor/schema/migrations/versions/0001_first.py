"""The first schema: runs, tasks, tries, samples, nodes, blocks and files."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LONG = ("task", "try", "status", "resource", "file", "input_file", "output_file")
"""Tables that number their runs; each has a view of its name that shows the run's id instead."""


def upgrade() -> None:
    """Make all tables, and the views on the long ones."""
    op.create_table('workflow',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('workflow_name', sa.Text(), nullable=True),
    sa.Column('flow_version', sa.Text(), nullable=True),
    sa.Column('python_version', sa.Text(), nullable=True),
    sa.Column('host', sa.Text(), nullable=True),
    sa.Column('user', sa.Text(), nullable=True),
    sa.Column('rundir', sa.Text(), nullable=True),
    sa.Column('script', sa.Text(), nullable=True),
    sa.Column('executors', sa.Text(), nullable=True),
    sa.Column('epoch', sa.Integer(), nullable=True),
    sa.Column('time_began', sa.BigInteger(), nullable=True),
    sa.Column('time_completed', sa.BigInteger(), nullable=True),
    sa.Column('time_last_event', sa.BigInteger(), nullable=True),
    sa.Column('tasks_completed_count', sa.BigInteger(), nullable=True),
    sa.Column('tasks_failed_count', sa.BigInteger(), nullable=True),
    sa.Column('tasks_memoized_count', sa.BigInteger(), nullable=True),
    sa.Column('tasks_cancelled_count', sa.BigInteger(), nullable=True),
    sa.Column('tasks_submitted_count', sa.BigInteger(), nullable=True),
    sa.Column('events_lost_count', sa.BigInteger(), nullable=True),
    sa.Column('ended_how', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('run_key'),
    sa.UniqueConstraint('run_id', name='uq_workflow_run_id')
    )
    op.create_index('ix_workflow_time_began', 'workflow', ['time_began'], unique=False)
    op.create_table('app',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('task_func_name', sa.Text(), nullable=False),
    sa.Column('task_kind', sa.Text(), nullable=True),
    sa.Column('tries_ended', sa.BigInteger(), nullable=True),
    sa.Column('run_time_sum_ns', sa.BigInteger(), nullable=True),
    sa.Column('run_time_max_ns', sa.BigInteger(), nullable=True),
    sa.Column('cpu_sum_s', sa.Float(), nullable=True),
    sa.Column('max_rss_kb', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'task_func_name')
    )
    op.create_table('app_edge',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('from_app', sa.Text(), nullable=False),
    sa.Column('to_app', sa.Text(), nullable=False),
    sa.Column('edges', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'from_app', 'to_app')
    )
    op.create_table('app_status',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('task_func_name', sa.Text(), nullable=False),
    sa.Column('task_status', sa.Text(), nullable=False),
    sa.Column('tasks', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'task_func_name', 'task_status')
    )
    op.create_table('block',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('executor_label', sa.Text(), nullable=False),
    sa.Column('block_id', sa.Text(), nullable=False),
    sa.Column('job_id', sa.Text(), nullable=True),
    sa.Column('status', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('time_requested', sa.BigInteger(), nullable=True),
    sa.Column('time_changed', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'executor_label', 'block_id')
    )
    op.create_table('file_rows',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=True),
    sa.Column('digest', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['run_key'], ['workflow.run_key'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_key', 'url'),
    sqlite_with_rowid=False
    )
    op.create_table('gap',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('timestamp', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'timestamp', 'reason')
    )
    op.create_table('node',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('executor', sa.Text(), nullable=False),
    sa.Column('manager', sa.Text(), nullable=False),
    sa.Column('block_id', sa.Text(), nullable=True),
    sa.Column('hostname', sa.Text(), nullable=True),
    sa.Column('python_version', sa.Text(), nullable=True),
    sa.Column('pid', sa.Integer(), nullable=True),
    sa.Column('worker_count', sa.Integer(), nullable=True),
    sa.Column('cpu_count', sa.Integer(), nullable=True),
    sa.Column('total_memory', sa.BigInteger(), nullable=True),
    sa.Column('time_joined', sa.BigInteger(), nullable=True),
    sa.Column('time_left', sa.BigInteger(), nullable=True),
    sa.Column('lost', sa.SmallInteger(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'executor', 'manager')
    )
    op.create_table('projection',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('log_path', sa.Text(), nullable=True),
    sa.Column('position', sa.BigInteger(), nullable=True),
    sa.Column('header_position', sa.BigInteger(), nullable=True),
    sa.Column('events', sa.BigInteger(), nullable=True),
    sa.Column('damaged_bytes', sa.BigInteger(), nullable=True),
    sa.Column('heartbeat', sa.BigInteger(), nullable=True),
    sa.Column('finished', sa.Integer(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['workflow.run_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id')
    )
    op.create_table('resource_rows',
    sa.Column('resource_id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.BigInteger(), nullable=True),
    sa.Column('try_id', sa.Integer(), nullable=True),
    sa.Column('timestamp', sa.BigInteger(), nullable=False),
    sa.Column('executor', sa.Text(), nullable=True),
    sa.Column('block_id', sa.Text(), nullable=True),
    sa.Column('hostname', sa.Text(), nullable=True),
    sa.Column('manager', sa.Text(), nullable=True),
    sa.Column('psutil_process_pid', sa.Integer(), nullable=True),
    sa.Column('psutil_process_count', sa.Integer(), nullable=True),
    sa.Column('psutil_process_cpu_percent', sa.Float(), nullable=True),
    sa.Column('psutil_process_time_user', sa.Float(), nullable=True),
    sa.Column('psutil_process_time_system', sa.Float(), nullable=True),
    sa.Column('psutil_process_memory_resident', sa.BigInteger(), nullable=True),
    sa.Column('psutil_process_memory_percent', sa.Float(), nullable=True),
    sa.Column('psutil_process_disk_read', sa.BigInteger(), nullable=True),
    sa.Column('psutil_process_disk_write', sa.BigInteger(), nullable=True),
    sa.Column('psutil_process_net_sent', sa.BigInteger(), nullable=True),
    sa.Column('psutil_process_net_received', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_key'], ['workflow.run_key'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('resource_id')
    )
    op.create_index('ix_resource_task', 'resource_rows', ['run_key', 'task_id', 'timestamp'], unique=False)
    op.create_index('ix_resource_time', 'resource_rows', ['run_key', 'timestamp'], unique=False)
    op.create_table('task_rows',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('task_func_name', sa.Text(), nullable=True),
    sa.Column('task_kind', sa.Text(), nullable=True),
    sa.Column('task_label', sa.Text(), nullable=True),
    sa.Column('task_status', sa.Text(), nullable=True),
    sa.Column('task_executor', sa.Text(), nullable=True),
    sa.Column('task_depends', sa.Text(), nullable=True),
    sa.Column('task_inputs', sa.Text(), nullable=True),
    sa.Column('task_outputs', sa.Text(), nullable=True),
    sa.Column('task_stdin', sa.Text(), nullable=True),
    sa.Column('task_stdout', sa.Text(), nullable=True),
    sa.Column('task_stderr', sa.Text(), nullable=True),
    sa.Column('task_hashsum', sa.Text(), nullable=True),
    sa.Column('task_memoize', sa.SmallInteger(), nullable=True),
    sa.Column('task_from_memo', sa.SmallInteger(), nullable=True),
    sa.Column('task_time_invoked', sa.BigInteger(), nullable=True),
    sa.Column('task_time_running', sa.BigInteger(), nullable=True),
    sa.Column('task_time_returned', sa.BigInteger(), nullable=True),
    sa.Column('task_depth', sa.Integer(), nullable=True),
    sa.Column('task_tries', sa.Integer(), nullable=True),
    sa.Column('task_fail_count', sa.Integer(), nullable=True),
    sa.Column('task_fail_cost', sa.Float(), nullable=True),
    sa.Column('task_parent', sa.BigInteger(), nullable=True),
    sa.Column('task_error', sa.Text(), nullable=True),
    sa.Column('task_traceback', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['run_key'], ['workflow.run_key'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_key', 'task_id'),
    sqlite_with_rowid=False
    )
    op.create_index('ix_task_func', 'task_rows', ['run_key', 'task_func_name', 'task_id'], unique=False)
    op.create_index('ix_task_status', 'task_rows', ['run_key', 'task_status', 'task_id'], unique=False)
    op.create_table('block_status',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('executor_label', sa.Text(), nullable=False),
    sa.Column('block_id', sa.Text(), nullable=False),
    sa.Column('timestamp', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('job_id', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['run_id', 'executor_label', 'block_id'], ['block.run_id', 'block.executor_label', 'block.block_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'executor_label', 'block_id', 'timestamp', 'status')
    )
    op.create_table('input_file_rows',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('local_path', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('time_staged', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_key', 'task_id'], ['task_rows.run_key', 'task_rows.task_id'], ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['run_key', 'url'], ['file_rows.run_key', 'file_rows.url'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_key', 'task_id', 'url'),
    sqlite_with_rowid=False
    )
    op.create_index('ix_input_file_url', 'input_file_rows', ['run_key', 'url'], unique=False)
    op.create_table('output_file_rows',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('local_path', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('time_staged', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_key', 'task_id'], ['task_rows.run_key', 'task_rows.task_id'], ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['run_key', 'url'], ['file_rows.run_key', 'file_rows.url'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_key', 'task_id', 'url'),
    sqlite_with_rowid=False
    )
    op.create_index('ix_output_file_url', 'output_file_rows', ['run_key', 'url'], unique=False)
    op.create_table('status_rows',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('timestamp', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('task_status_name', sa.Text(), nullable=False),
    sa.Column('try_id', sa.Integer(), nullable=True),
    sa.ForeignKeyConstraint(['run_key', 'task_id'], ['task_rows.run_key', 'task_rows.task_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_key', 'task_id', 'timestamp', 'task_status_name'),
    sqlite_with_rowid=False
    )
    op.create_table('try_rows',
    sa.Column('run_key', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('try_id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('task_executor', sa.Text(), nullable=True),
    sa.Column('block_id', sa.Text(), nullable=True),
    sa.Column('hostname', sa.Text(), nullable=True),
    sa.Column('manager', sa.Text(), nullable=True),
    sa.Column('worker', sa.Integer(), nullable=True),
    sa.Column('pid', sa.Integer(), nullable=True),
    sa.Column('try_key', sa.BigInteger(), nullable=True),
    sa.Column('task_try_time_launched', sa.BigInteger(), nullable=True),
    sa.Column('task_try_time_running', sa.BigInteger(), nullable=True),
    sa.Column('task_try_time_returned', sa.BigInteger(), nullable=True),
    sa.Column('task_try_verdict', sa.Text(), nullable=True),
    sa.Column('task_fail_history', sa.Text(), nullable=True),
    sa.Column('cpu_user_s', sa.Float(), nullable=True),
    sa.Column('cpu_system_s', sa.Float(), nullable=True),
    sa.Column('max_rss_kb', sa.BigInteger(), nullable=True),
    sa.Column('io_read_blocks', sa.BigInteger(), nullable=True),
    sa.Column('io_write_blocks', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['run_key', 'task_id'], ['task_rows.run_key', 'task_rows.task_id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_key', 'task_id', 'try_id'),
    sqlite_with_rowid=False
    )
    op.create_index('ix_try_running', 'try_rows', ['run_key', 'task_try_time_running'], unique=False)
    found = sa.inspect(op.get_bind())
    for name in LONG:
        names = [column["name"] for column in found.get_columns(f"{name}_rows") if column["name"] != "run_key"]
        shown = ", ".join(f'r."{column}"' for column in names)
        op.execute(
            f'CREATE VIEW "{name}" AS SELECT w.run_id, {shown} '
            f'FROM "{name}_rows" r JOIN workflow w ON w.run_key = r.run_key'
        )


def downgrade() -> None:
    """Drop all views and tables: the database is as before the first migration."""
    for name in LONG:
        op.execute(f'DROP VIEW "{name}"')
    op.drop_table('try_rows')
    op.drop_table('status_rows')
    op.drop_table('output_file_rows')
    op.drop_table('input_file_rows')
    op.drop_table('block_status')
    op.drop_table('task_rows')
    op.drop_table('resource_rows')
    op.drop_table('projection')
    op.drop_table('node')
    op.drop_table('gap')
    op.drop_table('file_rows')
    op.drop_table('block')
    op.drop_table('app_status')
    op.drop_table('app_edge')
    op.drop_table('app')
    op.drop_table('workflow')
