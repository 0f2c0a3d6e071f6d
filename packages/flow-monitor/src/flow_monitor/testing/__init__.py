"""Made-up runs, logs and databases for tests, demonstrations and benchmarks."""
