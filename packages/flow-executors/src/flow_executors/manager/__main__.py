"""``python -m flow_executors.manager``: the manager of one node.

The fork server is forked before anything else is imported: what is loaded here first is all that workers start with.
"""

from __future__ import annotations

from flow_executors.manager.fork_client import ForkServerClient

if __name__ == "__main__":
    fork_client = ForkServerClient.fork()

    from flow_executors.manager.start import main

    main(fork_client)
