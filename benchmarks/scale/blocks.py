"""What a machine of 8,192 nodes with 32 workers each costs the interchange: one connection a node, or one a block.

    python benchmarks/scale/blocks.py [--nodes 8192] [--tasks 262144] [--idle 30]

The first row is as of an ExtremeScaleExecutor with blocks of 2,048 nodes, MPI jobs of 65,536 ranks each, the second as
of a HighThroughputExecutor. Simulated managers over real encrypted connections, in one run, as in ``managers.py``.
"""

from __future__ import annotations

import argparse

from managers import SLOTS, measure, raise_descriptor_limit, table

NODES_OF_A_BLOCK = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=8192)
    parser.add_argument("--tasks", type=int, default=262_144)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of idleness to look at")
    options = parser.parse_args()
    raise_descriptor_limit(1024)
    blocks = max(1, options.nodes // NODES_OF_A_BLOCK)
    # The first rank of a block has no worker.
    each = SLOTS * min(options.nodes, NODES_OF_A_BLOCK) - 1
    rows = []
    for managers, slots in ((blocks, each), (options.nodes, SLOTS)):
        rows.append(measure(managers, options.tasks, options.idle, slots))
        print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
