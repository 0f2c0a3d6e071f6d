"""``python -m flow_executors.manager``: the manager of one node.

The nursery is forked before anything else is imported: what is loaded here first is all that workers start with.
"""

from __future__ import annotations

from flow_executors.manager.nursery import Nursery

if __name__ == "__main__":
    nursery = Nursery.fork()

    from flow_executors.manager.start import main

    main(nursery)
