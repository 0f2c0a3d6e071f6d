"""The projection: from the event log of a run to rows of the database."""
