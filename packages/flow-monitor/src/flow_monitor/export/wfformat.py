"""A run as WfCommons' WfFormat 1.5: its graph, files and running times, to be replayed or simulated."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from sqlalchemy.engine import Connection

from flow_core.files import last_name
from flow_monitor.export.moments import iso
from flow_monitor.queries import blocks, provenance, workflows

Json = dict[str, object]
_DONE = frozenset({"exec_done", "memo_done"})


def wfformat(connection: Connection, run_id: str) -> Json:
    """Return a run's tasks that were done, as a document of WfFormat. Raises NoSuchRecord.

    Files are named by the last part of their URL, with a digest of the whole where two have the same.
    """
    run = workflows.one(connection, run_id)
    known = provenance.files(connection, run_id)
    names = _names(list(known))
    done = [task for task in provenance.tasks(connection, run_id) if task.status in _DONE]
    # Parents that failed or were cancelled are not in the document: references to them are left out.
    kept = {task.task_id: task.name for task in done}
    children: dict[int, list[str]] = defaultdict(list)
    for task in done:
        for parent in task.depends:
            children[parent].append(task.name)
    specified: list[Json] = [
        {
            "name": task.app or "task",
            "id": task.name,
            "parents": [kept[parent] for parent in task.depends if parent in kept],
            "children": children[task.task_id],
            "inputFiles": [names[url] for url in task.inputs],
            "outputFiles": [names[url] for url in task.outputs],
        }
        for task in done
    ]
    used = {url for task in done for url in (*task.inputs, *task.outputs)}
    files: list[Json] = [{"id": names[url], "sizeInBytes": max(0, known[url].size or 0)} for url in sorted(used)]
    return {
        "name": run.name,
        "description": f"Run {run_id} of {run.name}",
        "createdAt": iso(run.time_began),
        "schemaVersion": "1.5",
        "author": {"name": run.user or "unknown", "email": f"{run.user or 'unknown'}@{run.host or 'localhost'}"},
        "runtimeSystem": {"name": "Flow", "version": run.flow_version or "0"},
        "workflow": {
            "specification": {"tasks": specified, "files": files},
            "execution": {
                "makespanInSeconds": round((run.duration_ns or 0) / 1e9, 6),
                "executedAt": iso(run.time_began),
                "tasks": [_executed(task) for task in done],
                "machines": _machines(connection, run_id, done),
            },
        },
    }


def _executed(task: provenance.TaskRecord) -> Json:
    made: Json = {
        "id": task.name,
        "runtimeInSeconds": round(task.seconds, 6),
        "executedAt": iso(task.time_running or task.time_invoked),
        "command": {"program": task.app or "task", "arguments": []},
    }
    if task.host:
        made["machines"] = [task.host]
    if task.cpu_s is not None and task.seconds:
        made["avgCPU"] = round(100 * task.cpu_s / task.seconds, 3)
    if task.max_rss_kb:
        made["memoryInBytes"] = task.max_rss_kb * 1024
    return made


def _machines(connection: Connection, run_id: str, done: list[provenance.TaskRecord]) -> list[Json]:
    found: dict[str, Json] = {}
    for node in blocks.nodes(connection, run_id):
        machine: Json = {"nodeName": node.host, "cpu": {"coreCount": max(1, node.cpu_count)}}
        if node.memory:
            machine["memoryInBytes"] = node.memory
        found[node.host] = machine
    for host in {task.host for task in done if task.host} - found.keys():
        found[host] = {"nodeName": host}
    return [found[host] for host in sorted(found)]


def _names(urls: list[str]) -> dict[str, str]:
    """Return a name that can be a file's for each URL, no two the same."""
    short = {url: last_name(url) or "file" for url in urls}
    often: dict[str, int] = defaultdict(int)
    for name in short.values():
        often[name] += 1
    return {
        url: name if often[name] == 1 else f"{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name}"
        for url, name in short.items()
    }
