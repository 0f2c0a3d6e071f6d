"""Run by alembic: migrates over the connection it was given, inside that connection's transaction."""

from alembic import context

from flow_monitor.schema.tables import metadata
from flow_monitor.schema.version import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
