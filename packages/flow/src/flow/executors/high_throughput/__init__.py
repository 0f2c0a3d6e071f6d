"""The high-throughput executor, under the path that scripts use."""
