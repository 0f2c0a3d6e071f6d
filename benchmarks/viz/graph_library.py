"""Time graph work of the pages against networkx: critical path and levels of a made-up run, in turn.

    python benchmarks/viz/graph_library.py [--tasks 100000] [--rounds 3]

Needs networkx. Prints CPU milliseconds, the best of the rounds; the import of networkx is timed by itself.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable

from flow_monitor.queries.records import GraphTask
from flow_viz.graph.critical import critical_path
from flow_viz.graph.layers import _layers


def _memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _tasks(count: int) -> list[GraphTask]:
    choice = random.Random(1)
    depends = [
        tuple({choice.randrange(max(0, at - 1000), at) for _ in range(choice.choice((0, 1, 1, 2, 3)))}) if at else ()
        for at in range(count)
    ]
    return [GraphTask(at, "app", "exec_done", depends[at], 0, 1.0 + at % 7) for at in range(count)]


def main() -> None:
    """Time each kind of work by Flow's own code and by networkx."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    memory_mb, began = _memory_mb(), time.process_time()
    import networkx

    print(f"import of networkx: {1e3 * (time.process_time() - began):.0f} ms, {_memory_mb() - memory_mb} MB")
    tasks = _tasks(given.tasks)
    edges = [(above, task.task_id) for task in tasks for above in task.depends]

    def graph() -> networkx.DiGraph:
        made = networkx.DiGraph()
        made.add_nodes_from(range(given.tasks))
        made.add_edges_from(edges)
        return made

    def longest_path() -> float:
        made = graph()
        best: dict[int, float] = {}
        for task_id in networkx.topological_sort(made):
            best[task_id] = tasks[task_id].run_time_s + max((best[above] for above in made.pred[task_id]), default=0.0)
        return max(best.values())

    ways: list[tuple[str, Callable[[], object]]] = [
        ("critical path, Flow", lambda: critical_path(tasks)),
        ("critical path, dag_longest_path", lambda: networkx.dag_longest_path(graph())),
        ("its seconds alone, topological_sort", longest_path),
        ("levels, Flow (circles allowed)", lambda: _layers(given.tasks, edges)),
        ("levels, topological_generations (no circles)", lambda: list(networkx.topological_generations(graph()))),
        (
            "levels, generations of the condensation",
            lambda: list(networkx.topological_generations(networkx.condensation(graph()))),
        ),
    ]
    best_s = dict.fromkeys([name for name, _ in ways], float("inf"))
    for _ in range(given.rounds):
        for name, work in ways:
            began = time.process_time()
            work()
            best_s[name] = min(best_s[name], time.process_time() - began)
    for name, seconds in best_s.items():
        print(f"{name}: {1e3 * seconds:.0f} ms")


if __name__ == "__main__":
    main()
