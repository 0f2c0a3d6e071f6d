"""Samplers of resources: process trees, threads and network traffic of tasks, load of nodes."""
