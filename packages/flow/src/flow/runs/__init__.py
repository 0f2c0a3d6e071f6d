"""Runs as their user sees them: found by number, asked while they go on, read from their records afterwards."""
