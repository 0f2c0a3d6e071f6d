"""The event log of a run: framing, records, writer, reader."""
