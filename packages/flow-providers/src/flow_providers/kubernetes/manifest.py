"""Pods and secrets as the API takes them. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from flow_providers.interfaces.job_extras import secret_variable
from flow_providers.kubernetes.names import JOB, TAG, secret_key
from flow_providers.kubernetes.parse import Json
from flow_providers.templates import render

_MOUNTED = "/run/flow/secrets"
_PRIVATE = "/run/flow/job"
_READABLE = 0o444  # in the container only; its command gets copies of mode 0600, whatever user it is


@dataclass(frozen=True, slots=True)
class PodOptions:
    """The options that all pods of one provider share; see ``KubernetesProvider``."""

    image: str
    limits: dict[str, Json]
    requests: dict[str, Json]
    grace_s: int
    walltime_s: int | None = None
    image_pull_policy: str | None = None
    pull_secret: str | None = None
    user_id: int | None = None
    group_id: int | None = None
    run_as_non_root: bool = False
    volumes: tuple[tuple[str, str], ...] = ()
    service_account_name: str | None = None
    node_selector: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodJob:
    """One job: its id, tag, bash code, environment, and the names of its secrets."""

    job_id: str
    tag: str
    script: str
    environment: tuple[tuple[str, str], ...] = ()
    secret_names: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, Json]:
        """The labels of all that belongs to the job."""
        return {TAG: self.tag, JOB: self.job_id, "app.kubernetes.io/managed-by": "flow"}


def script_of(job_id: str, command: str, worker_init: str, secret_names: Sequence[str]) -> str:
    """Return the bash code a container runs."""
    return render(
        "flow_providers.kubernetes",
        "script.sh.j2",
        {
            "job_id": job_id,
            "command": command,
            "worker_init": worker_init,
            "mounted": _MOUNTED,
            "private": _PRIVATE,
            "secrets": [(secret_key(name), secret_variable(name)) for name in secret_names],
        },
    )


def pod(name: str, job: PodJob, options: PodOptions) -> dict[str, Json]:
    """Return the manifest of one pod of a job."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": job.labels},
        "spec": _spec(job, options),
    }


def secret(job: PodJob, contents: Sequence[tuple[str, bytes]]) -> dict[str, Json]:
    """Return the manifest of the secret of a job; it has the name of the job."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": job.job_id, "labels": job.labels},
        "type": "Opaque",
        "data": {secret_key(name): b64encode(content).decode() for name, content in contents},
    }


def unexpanded(text: str) -> str:
    """Return text that arrives as it is: Kubernetes reads ``$(NAME)`` and ``$$`` in commands and variables."""
    return text.replace("$", "$$")


def _spec(job: PodJob, options: PodOptions) -> dict[str, Json]:
    spec: dict[str, Json] = {
        # A job runs once: a restarted command would be a second job under the same id.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": options.grace_s,
        # Each service of the namespace would be several variables of the command, hundreds in a large one.
        "enableServiceLinks": False,
        # Tasks run the user's code: without need, it gets no key to the cluster.
        "automountServiceAccountToken": options.service_account_name is not None,
        "containers": [_container(job, options)],
        "volumes": _volumes(job, options),
    }
    if options.walltime_s is not None:
        spec["activeDeadlineSeconds"] = options.walltime_s
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    if options.service_account_name:
        spec["serviceAccountName"] = options.service_account_name
    if options.node_selector:
        spec["nodeSelector"] = options.node_selector
    security = _security(options)
    if security:
        spec["securityContext"] = security
    return spec


def _container(job: PodJob, options: PodOptions) -> dict[str, Json]:
    container: dict[str, Json] = {
        "name": "job",
        "image": options.image,
        "command": ["bash", "-c", unexpanded(job.script)],
        "env": [{"name": name, "value": unexpanded(value)} for name, value in job.environment],
        "resources": {"limits": options.limits, "requests": options.requests},
        "volumeMounts": _mounts(job, options),
        # The end of the output becomes the message of a pod that failed.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if options.image_pull_policy:
        container["imagePullPolicy"] = options.image_pull_policy
    return container


def _volumes(job: PodJob, options: PodOptions) -> list[Json]:
    volumes: list[Json] = [
        {"name": f"volume-{i}", "persistentVolumeClaim": {"claimName": claim}}
        for i, (claim, _) in enumerate(options.volumes)
    ]
    if job.secret_names:
        volumes.append({"name": "flow-secrets", "secret": {"secretName": job.job_id, "defaultMode": _READABLE}})
        # In memory: the copies of secrets reach no disk of the node.
        volumes.append({"name": "flow-job", "emptyDir": {"medium": "Memory"}})
    return volumes


def _mounts(job: PodJob, options: PodOptions) -> list[Json]:
    mounts: list[Json] = [{"name": f"volume-{i}", "mountPath": path} for i, (_, path) in enumerate(options.volumes)]
    if job.secret_names:
        mounts.append({"name": "flow-secrets", "mountPath": _MOUNTED, "readOnly": True})
        mounts.append({"name": "flow-job", "mountPath": _PRIVATE})
    return mounts


def _security(options: PodOptions) -> dict[str, Json]:
    security: dict[str, Json] = {}
    if options.user_id is not None:
        security["runAsUser"] = options.user_id
    if options.group_id is not None:
        security["runAsGroup"] = options.group_id
        security["fsGroup"] = options.group_id
    if options.run_as_non_root:
        security["runAsNonRoot"] = True
    return security
