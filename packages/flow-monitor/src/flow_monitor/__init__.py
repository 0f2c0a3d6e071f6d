"""Monitoring for Flow: the events of a run in a database, and typed queries on it."""
