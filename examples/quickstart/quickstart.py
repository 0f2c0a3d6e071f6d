"""Look through Python's own standard library, in parallel, on worker processes and threads.

A first tour of Flow that does real work on data every machine has:

* a Python app counts what is in each module (on worker processes),
* bash apps make sorted word lists with sort and uniq (on threads, which only wait for the commands),
* a join app decides, once the counts are known, which modules deserve a closer look,
* a last app writes the report.

Run it twice: the second run finds the results of the first in its checkpoint.

    python quickstart.py [--modules N] [--run-dir runinfo]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path

import flow
from flow import AppFuture, Config, File, bash_app, join_app, python_app
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow.progress import ProgressBar
from flow.providers import LocalProvider
from flow.utils import get_all_checkpoints

CLOSER_LOOKS = 12
GROUPS = 8


@python_app(executors=["workers"], cache=True)
def measure(path):
    """Parse one module and count what is in it."""
    import ast

    with open(path, "rb") as source:
        text = source.read()
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    return {
        "path": path,
        "lines": text.count(b"\n"),
        "functions": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "imports": sum(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes),
    }


@bash_app(executors=["threads"], cache=True)
def count_words(inputs=(), outputs=()):
    """List the words of some modules with their counts, sorted by word."""
    files = " ".join(f"'{path}'" for path in inputs)
    return f"cat {files} | tr -cs 'A-Za-z_' '\\n' | LC_ALL=C sort | uniq -c | awk '{{print $2, $1}}' > '{outputs[0]}'"


@bash_app(executors=["threads"], cache=True)
def merge_words(inputs=(), outputs=()):
    """Merge sorted word lists into one, most frequent first."""
    files = " ".join(f"'{path}'" for path in inputs)
    add = "{count[$1] += $2} END {for (word in count) print count[word], word}"
    return f"LC_ALL=C sort -m {files} | awk '{add}' | LC_ALL=C sort -k1,1nr -k2 > '{outputs[0]}'"


@python_app(executors=["workers"], cache=True)
def longest_function(path):
    """Find the longest function of one module."""
    import ast

    with open(path, "rb") as source:
        tree = ast.parse(source.read())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=lambda node: node.end_lineno - node.lineno, default=None)
    return (path, longest.name, longest.end_lineno - longest.lineno + 1) if longest else (path, "none", 0)


@join_app
def look_closer(how_many, inputs=()):
    """Decide at run time which modules to look at again: the largest ones."""
    largest = sorted(inputs, key=lambda count: count["lines"], reverse=True)[:how_many]
    return [longest_function(count["path"]) for count in largest]


@python_app(executors=["threads"])
def write_report(details, words, inputs=(), outputs=()):
    """Bring all findings together in one file."""
    totals = {name: sum(count[name] for count in inputs) for name in ("lines", "functions", "classes", "imports")}
    with open(words) as stream:
        frequent = [line.split() for line, _ in zip(stream, range(8), strict=False)]
    lines = [f"{len(inputs)} modules, " + ", ".join(f"{value:,} {name}" for name, value in totals.items()), ""]
    lines += ["The longest function of each of the largest modules:"]
    lines += [
        f"  {length:5d} lines  {name}  ({path})"
        for path, name, length in sorted(details, key=lambda detail: -detail[2])
    ]
    lines += ["", "The most frequent words: " + ", ".join(f"{word} ({count})" for count, word in frequent)]
    with open(outputs[0], "w") as report:
        report.write("\n".join(lines) + "\n")
    return "\n".join(lines)


def find_modules(limit: int | None) -> list[str]:
    """Return the paths of the standard library's modules, largest first, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
    modules = [path for path in root.rglob("*.py") if not skipped.intersection(path.relative_to(root).parts)]
    modules.sort(key=lambda path: (-path.stat().st_size, str(path)))
    return [str(path) for path in modules[:limit]]


def configuration(run_dir: str) -> Config:
    """Worker processes for the computing, threads for the waiting, monitoring, and a checkpoint after each task."""
    return Config(
        name="quickstart",
        executors=[
            HighThroughputExecutor(
                label="workers",
                max_workers=os.cpu_count(),
                provider=LocalProvider(init_blocks=1, max_blocks=1),
            ),
            ThreadPoolExecutor(label="threads", max_threads=4),
        ],
        monitoring=MonitoringHub(logging_endpoint=f"sqlite:///{os.path.abspath(run_dir)}/monitoring.db"),
        sinks=[ProgressBar()],
        checkpoint_mode="task_exit",
        checkpoint_files=get_all_checkpoints(run_dir),
        run_dir=run_dir,
        strategy="none",
    )


def submit(modules: list[str], results: Path) -> AppFuture[str]:
    """Call the apps: this makes the whole graph, while the first tasks already run."""
    counts = [measure(path) for path in modules]
    lists = [
        count_words(inputs=[File(path) for path in modules[group::GROUPS]], outputs=[File(results / f"words-{group}")])
        for group in range(min(GROUPS, len(modules)))
    ]
    words = merge_words(inputs=[made.outputs[0] for made in lists], outputs=[File(results / "words")])
    details = look_closer(CLOSER_LOOKS, inputs=counts)
    return write_report(details, words.outputs[0], inputs=counts, outputs=[File(results / "report.txt")])


def main() -> None:
    """Run the workflow and say where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", type=int, default=None, help="look at so many modules only, the largest first")
    parser.add_argument("--run-dir", default="runinfo", help="where runs keep their files (default: runinfo)")
    options = parser.parse_args()
    results = Path(options.run_dir).absolute() / "quickstart"
    results.mkdir(parents=True, exist_ok=True)
    modules = find_modules(options.modules)

    config = configuration(options.run_dir)
    began = time.perf_counter()
    with flow.load(config) as kernel:
        report = submit(modules, results).result()
        elapsed = time.perf_counter() - began
        summary = kernel.summary()
    print(f"\n{report}\n")
    print(f"{summary.submitted} tasks in {elapsed:.1f} s, {summary.memoized} of them remembered", end="")
    print(" from the checkpoints of earlier runs" if summary.memoized else " (run it again: it remembers)")
    print(f"Report:         {results / 'report.txt'}")
    print(f"Run directory:  {kernel.run_dir}")
    viewer = "flow-visualize" if shutil.which("flow-visualize") else Path(sys.executable).with_name("flow-visualize")
    print(f"See the run:    {viewer} sqlite:///{os.path.abspath(options.run_dir)}/monitoring.db")


if __name__ == "__main__":
    main()
