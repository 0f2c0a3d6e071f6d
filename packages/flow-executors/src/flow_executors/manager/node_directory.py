"""A directory of the manager's own on its node: for files of tasks, and for logs that cannot be written elsewhere."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import threading

from flow_core.errors import StagingError
from flow_core.remote.staged import Claim, claim_alone, reserved

log = logging.getLogger("flow.manager")


class NodeDirectory:
    """Made when it is first asked for, removed at the end; of a manager that was killed, by its fork server.

    What had to be made for it, such as a ``working_dir`` that was not there, is removed with the last of a node.

    Any thread.

    Attributes:
        places: Where it may be, best first: below the executor's ``working_dir``, the user's cache, the directory for
            temporary files.
    """

    def __init__(self, working_dir: str) -> None:
        name = f"node-{secrets.token_hex(8)}"
        cache = os.environ.get("XDG_CACHE_HOME", "")
        bases = [
            os.path.abspath(working_dir) if working_dir else "",
            os.path.join(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"), "flow"),
            tempfile.gettempdir(),
        ]
        self.places = tuple(os.path.join(reserved(base), name) for base in bases if os.path.isabs(base))
        self._claim: Claim | None = None
        self._lock = threading.Lock()

    def path(self) -> str:
        """Return the directory. Raises StagingError saying why there is none."""
        with self._lock:
            if self._claim is None:
                self._claim = self._made()
            return self._claim.path

    def _made(self) -> Claim:
        problems = []
        for place in self.places:
            try:
                made = claim_alone(place)
            except OSError as error:
                problems.append(f"{os.path.dirname(os.path.dirname(place))}: {error.strerror or error}")
                continue
            os.chmod(made.path, 0o700)
            log.info("files of tasks lie in %s", made.path)
            return made
        raise StagingError(
            f"no directory for files of tasks can be made on {os.uname().nodename} ({'; '.join(problems)}): set the "
            "executor's working_dir to one that can be written"
        )

    def close(self) -> None:
        """Remove it with all that is in it. Never raises."""
        with self._lock:
            made, self._claim = self._claim, None
        if made is not None:
            made.release()
