"""Executors of others behind our interface: ``concurrent.futures`` pools, and those in the seeds' style."""

from __future__ import annotations


class FuturesExecutor:
    pass


class SubmitExecutor:
    pass


class SubmitStyle:
    pass
