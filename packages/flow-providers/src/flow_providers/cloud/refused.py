"""The answer of a cloud that says no."""

from __future__ import annotations

from flow_providers.errors import SchedulerUnavailable


class Refused(SchedulerUnavailable):
    """The cloud understood, and said no; nothing is known about any job by that.

    Attributes:
        code: The cloud's own code, such as ``InsufficientInstanceCapacity`` or ``404``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
