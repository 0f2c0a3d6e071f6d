"""The error for a call that a cloud refused."""

from __future__ import annotations

from flow_providers.errors import SchedulerUnavailable


class Refused(SchedulerUnavailable):
    """The cloud refused a call that it understood; that says nothing about any job.

    Attributes:
        code: The cloud's own code, such as ``InsufficientInstanceCapacity`` or ``404``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
