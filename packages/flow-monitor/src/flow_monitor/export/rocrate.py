"""A run as a Workflow Run RO-Crate: what was run, by whom, on which files, task by task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import Connection

from flow_core.files import last_name
from flow_monitor.export.moments import iso
from flow_monitor.queries import provenance, workflows
from flow_monitor.queries.records import RunState, Workflow

Json = dict[str, object]
_PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
_CONTEXT = ("https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context")
_DONE = "http://schema.org/CompletedActionStatus"
_FAILED = "http://schema.org/FailedActionStatus"
_ACTIVE = "http://schema.org/ActiveActionStatus"
_STATES = {"exec_done": _DONE, "memo_done": _DONE, "failed": _FAILED, "dep_fail": _FAILED, "cancelled": _FAILED}


def metadata(connection: Connection, run_id: str) -> Json:
    """Return ``ro-crate-metadata.json`` of a run. Raises NoSuchRecord."""
    run = workflows.one(connection, run_id)
    script = Path(run.script).name or "workflow.py"
    apps = [app.name for app in workflows.apps(connection, run_id)]
    files = provenance.files(connection, run_id)
    tasks = list(provenance.tasks(connection, run_id))
    read = {url for task in tasks for url in task.inputs}
    written = {url for task in tasks for url in task.outputs}
    graph: list[Json] = [
        {
            "@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"},
            "conformsTo": [{"@id": "https://w3id.org/ro/crate/1.1"}, {"@id": _PROFILES[-1]}],
        },
        {
            "@id": "./", "@type": "Dataset", "name": f"Run of {run.name}", "datePublished": iso(run.time_began),
            "description": f"Run {run_id} of {run.name} by Flow {run.flow_version}: {run.submitted} tasks",
            "license": {"@id": "https://spdx.org/licenses/CC0-1.0"},
            "conformsTo": _ids(_PROFILES), "mainEntity": {"@id": script},
            "hasPart": [{"@id": script}, *_ids(_id(url) for url in sorted(files))], "mentions": [{"@id": "#run"}],
        },
        {"@id": "https://spdx.org/licenses/CC0-1.0", "@type": "CreativeWork", "name": "CC0-1.0"},
        *[_entity(profile, "CreativeWork", profile.split("/")[-2]) for profile in _PROFILES],
        {
            "@id": script, "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"], "name": run.name,
            "programmingLanguage": {"@id": "#python"}, "hasPart": _ids(_app(app) for app in apps),
        },
        {"@id": "#python", "@type": "ComputerLanguage", "name": "Python", "version": run.python_version},
        {"@id": "#flow", "@type": "SoftwareApplication", "name": "Flow", "softwareVersion": run.flow_version},
        {"@id": "#agent", "@type": "Person", "name": run.user or "unknown"},
        *[_entity(_app(app), "SoftwareApplication", app) for app in apps],
        _whole(run, script, sorted(read - written), sorted(written)),
        *(_file(record) for record in files.values()),
        *(_action(task) for task in tasks),
        *(entity for task in tasks for entity in _resource_use(task)),
    ]  # fmt: skip
    return {"@context": list(_CONTEXT), "@graph": graph}


def write_crate(connection: Connection, run_id: str, directory: Path) -> Path:
    """Write a crate into a directory, with the script where it is still there; return the metadata's path."""
    made = metadata(connection, run_id)
    directory.mkdir(parents=True, exist_ok=True)
    run = workflows.one(connection, run_id)
    script = directory / (Path(run.script).name or "workflow.py")
    if run.script and Path(run.script).is_file():
        shutil.copyfile(run.script, script)
    else:
        script.write_text(f"# the script {run.script or 'of this run'} was not there when the crate was made\n")
    path = directory / "ro-crate-metadata.json"
    path.write_text(json.dumps(made, indent=1), encoding="utf-8")
    return path


def _whole(run: Workflow, script: str, inputs: list[str], outputs: list[str]) -> Json:
    state = {RunState.COMPLETED: _DONE, RunState.RUNNING: _ACTIVE}.get(run.state, _FAILED)
    made: Json = {
        "@id": "#run", "@type": "CreateAction", "name": f"Run of {run.name}", "instrument": {"@id": script},
        "agent": {"@id": "#agent"}, "startTime": iso(run.time_began), "actionStatus": {"@id": state},
        "object": _ids(map(_id, inputs)), "result": _ids(map(_id, outputs)),
    }  # fmt: skip
    if run.time_completed or run.time_last_event:
        made["endTime"] = iso(run.time_completed or run.time_last_event)
    return made


def _action(task: provenance.TaskRecord) -> Json:
    made: Json = {
        "@id": f"#task-{task.task_id}", "@type": "CreateAction", "name": task.label or f"{task.app} {task.task_id}",
        "instrument": {"@id": _app(task.app)}, "agent": {"@id": "#agent"},
        "actionStatus": {"@id": _STATES.get(task.status, _ACTIVE)},
        "object": _ids(map(_id, task.inputs)), "result": _ids(map(_id, task.outputs)),
    }  # fmt: skip
    if task.time_running or task.time_invoked:
        made["startTime"] = iso(task.time_running or task.time_invoked)
    if task.time_returned:
        made["endTime"] = iso(task.time_returned)
    if task.error:
        made["error"] = task.error
    if used := _resource_use(task):
        made["resourceUsage"] = _ids(str(entity["@id"]) for entity in used)
    return made


def _resource_use(task: provenance.TaskRecord) -> list[Json]:
    """Return a task's network traffic, where known, as the profile describes use of resources."""
    return [
        {
            "@id": f"#task-{task.task_id}-network-{name}", "@type": "PropertyValue", "name": f"bytes {name} over TCP",
            "propertyID": f"flow.net_{name}_bytes", "unitCode": "http://qudt.org/vocab/unit/BYTE", "value": str(value),
        }
        for name, value in (("sent", task.net_sent), ("received", task.net_received))
        if value is not None
    ]  # fmt: skip


def _file(record: provenance.FileRecord) -> Json:
    made: Json = {"@id": _id(record.url), "@type": "File", "name": last_name(record.url)}
    if record.size is not None:
        made["contentSize"] = str(record.size)
    # Other digests, such as an MD5 of a server, have no property in the profile.
    if len(record.digest) == 64:
        made["sha256"] = record.digest
    return made


def _id(url: str) -> str:
    """Return a URL for a file: of its own, or ``file:`` for a path."""
    return url if "://" in url else f"file://{quote(url if url.startswith('/') else '/' + url)}"


def _entity(identifier: str, kind: str, name: str) -> Json:
    return {"@id": identifier, "@type": kind, "name": name}


def _app(name: str) -> str:
    return f"#app-{quote(name, safe='')}"


def _ids(names: Iterable[str]) -> list[Json]:
    return [{"@id": name} for name in names]
