"""``python -m flow_executors.direct``: the manager of one node of a LowLatencyExecutor.

The fork server is forked before anything else is imported, as in ``flow_executors.manager``.
"""

from __future__ import annotations

from flow_executors.manager.fork_client import ForkServerClient

if __name__ == "__main__":
    fork_client = ForkServerClient.fork()

    from flow_executors.direct.manager import DirectManager
    from flow_executors.manager.start import main

    main(fork_client, DirectManager)
