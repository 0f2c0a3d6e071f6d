"""Queries on the monitoring database: typed records, paged lists."""
