"""Transfer machinery that all staging methods share: publishing, verifying, resuming, retrying, caching."""
