"""Web pages on the monitoring database of Flow."""
