"""Parallel scripting in Python: apps, futures and a dynamic dataflow on any resource."""
