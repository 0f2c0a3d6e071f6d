"""The process of the next rank on a node, seen ending by its descriptor: MPI tells nobody whose death ended a job."""

from __future__ import annotations

import logging
import os
import select

log = logging.getLogger("flow.manager")


class Neighbour:
    """Another rank of this node. One thread. ``fd`` is readable once it has ended; -1 where none can be seen."""

    def __init__(self, who: tuple[int, int] | None) -> None:
        """Take rank and process id; None where this rank is alone on its node."""
        self.who = who
        self.fd = -1
        if who is None:
            return
        try:
            self.fd = os.pidfd_open(who[1])
        except OSError as error:  # each in a container of its own
            log.info("the end of rank %d cannot be seen from here: %s", who[0], error)

    def ended(self) -> tuple[int, int] | None:
        """Return rank and process id once it has ended; else None."""
        if self.fd < 0:
            return None
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return self.who if poll.poll(0) else None

    def close(self) -> None:
        """Look no more. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
