"""``python -m flow_executors.direct``: the manager of one node of a LowLatencyExecutor.

The nursery is forked before anything else is imported, as in ``flow_executors.manager``.
"""

from __future__ import annotations

from flow_executors.manager.nursery import Nursery

if __name__ == "__main__":
    nursery = Nursery.fork()

    from flow_executors.direct.manager import DirectManager
    from flow_executors.manager.start import main

    main(nursery, DirectManager)
