"""Moves one file in a process of its own and prints how much memory that took: arguments METHOD WAY URL PATH.

Prints the peak of the process, and that of its biggest child, in KiB. METHOD is an expression over ``flow_staging``.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import flow_staging
from flow_core.files import File
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Direction, Transfer


def main() -> None:
    expression, way, url, path = sys.argv[1:]
    method = eval(expression, {"flow_staging": flow_staging})
    transfer = Transfer(File(url), Path(path), Direction(way), 7, "here")
    step = method.step([transfer])
    if step is None:
        method.stage([transfer]).result(500)
    else:
        step.run(lambda: None, NodeContext(executor="here"))
    method.close()
    status = Path("/proc/self/status").read_text()  # getrusage would count what this process was forked from
    print(status.split("VmHWM:")[1].split()[0])
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


if __name__ == "__main__":
    main()
