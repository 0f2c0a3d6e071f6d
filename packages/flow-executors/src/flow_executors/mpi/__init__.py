"""Tasks of ranks on nodes: launchers of MPI, variables of a task, and the start of daemons through the managers."""
