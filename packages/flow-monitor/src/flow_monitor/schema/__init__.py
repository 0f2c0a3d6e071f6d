"""The schema of the monitoring database: tables, migrations, engines for writing."""
