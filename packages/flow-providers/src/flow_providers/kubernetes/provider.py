"""The provider of Kubernetes: jobs as pods of a cluster."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from flow_providers.block_options import (
    AnyLauncher,
    BlockOptions,
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    Parallelism,
    WorkerInit,
)
from flow_providers.block_provider import check_copies
from flow_providers.errors import BadOption, ProviderError, SubmitUnknown
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.tag import check_tag, check_variable, new_tag
from flow_providers.jobs.tracked import TrackedProvider
from flow_providers.kubernetes.api import KubernetesApi
from flow_providers.kubernetes.manifest import PodJob, PodOptions, pod, script_of, secret
from flow_providers.kubernetes.names import JOB, TAG, amount, base_name, check_name, job_id, pod_name, selector
from flow_providers.kubernetes.parse import Object, at, jobs_of, text
from flow_providers.launchers.base import launch
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of
from flow_providers.walltime import walltime_seconds

# Seconds; shorter than elsewhere, since the API server lists a pod as soon as it has created it.
_MISSING_AFTER_S = 10.0
_GRACE_S = 10  # seconds between TERM and KILL in a pod that is deleted; Kubernetes' own default is 30


@documented
class KubernetesProvider(TrackedProvider):
    """Runs each job as a pod, or as ``nodes_per_block`` pods, of an image that has bash.

    Pods carry the job's tag as the label ``flow-tag``; nothing without it is ever listed or deleted. Ended pods stay,
    so that their output can be read, until their job is cancelled or the provider is closed.
    """

    label = "kubernetes"
    starts_on_each_node = True

    keeps_ended = True

    @checked
    def __init__(
        self,
        image: Annotated[str, about("Image of the container.")],
        namespace: Annotated[str, about("Namespace of the pods.")] = "default",
        nodes_per_block: Annotated[int, about("Pods of a job; each runs the command.")] = 1,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        max_cpu: Annotated[
            float, about("Limit of CPUs of a pod; its whole part is in FLOW_CORES for the command.")
        ] = 2,
        max_mem: Annotated[
            str,
            about("Limit of memory of a pod, such as ``'500Mi'``; in GB in FLOW_MEMORY_GB for the command."),
        ] = "500Mi",
        init_cpu: Annotated[float, about("CPUs requested for a pod.")] = 1,
        init_mem: Annotated[str, about("Memory requested for a pod.")] = "250Mi",
        parallelism: Parallelism = 1,
        worker_init: WorkerInit = "",
        pod_name: Annotated[
            str | None,
            about(
                "Beginning of the names of pods, by the naming rules of Kubernetes; a time stamp is "
                "appended. None: the job's name."
            ),
        ] = None,
        user_id: Annotated[str | int | None, about("User id the containers run as; None: the image's.")] = None,
        group_id: Annotated[
            str | int | None,
            about("Group id the containers run as, also the group of mounted volumes; None: the image's."),
        ] = None,
        run_as_non_root: Annotated[bool, about("Whether Kubernetes must refuse containers of root.")] = False,
        secret: Annotated[str | None, about("Name of the Kubernetes secret to pull the image with.")] = None,
        persistent_volumes: Annotated[
            Sequence[Sequence[str]],
            about("Pairs of the name of a persistent volume claim and the directory to mount it on."),
        ] = (),
        walltime: Annotated[str | None, about("``HH:MM:SS`` after which Kubernetes ends a pod; None: never.")] = None,
        config_file: Annotated[
            str | None,
            about("Kube config; None: ``$KUBECONFIG`` or ``~/.kube/config``, else the account of the pod we are in."),
        ] = None,
        context: Annotated[str | None, about("Context of the kube config; None: its current one.")] = None,
        image_pull_policy: Annotated[
            str | None, about("``'Always'``, ``'IfNotPresent'`` or ``'Never'``; None: by the image's tag.")
        ] = None,
        service_account_name: Annotated[
            str | None, about("Account of the pods; None: no token is given to them.")
        ] = None,
        node_selector: Annotated[dict[str, str] | None, about("Labels of the nodes to run on.")] = None,
        launcher: AnyLauncher = None,
        cmd_timeout: CmdTimeout = 30,
    ) -> None:
        super().__init__(record_of(BlockOptions, self), _MISSING_AFTER_S)
        self.image = image
        self.namespace = namespace
        self.max_cpu = max_cpu
        self.max_mem = max_mem
        self.pod_name = None if pod_name is None else check_name("pod_name", pod_name.lower())
        # A limit below one CPU still runs one task at a time.
        self.cores_per_node = max(int(max_cpu), 1)
        self.mem_per_node = round(amount("max_mem", max_mem) / 2**30, 3)
        if amount("init_mem", init_mem) > amount("max_mem", max_mem) or init_cpu > max_cpu:
            raise BadOption("KubernetesProvider: init_cpu and init_mem must not be more than max_cpu and max_mem")
        self._pods = PodOptions(
            image=image,
            limits={"cpu": f"{max_cpu:g}", "memory": max_mem},
            requests={"cpu": f"{init_cpu:g}", "memory": init_mem},
            grace_s=_GRACE_S,
            walltime_s=None if walltime is None else walltime_seconds(walltime),
            image_pull_policy=image_pull_policy,
            pull_secret=secret,
            user_id=_id("user_id", user_id),
            group_id=_id("group_id", group_id),
            run_as_non_root=run_as_non_root,
            volumes=_volumes(persistent_volumes),
            service_account_name=service_account_name,
            node_selector=dict(node_selector or {}),
        )
        self._api = KubernetesApi(namespace, config_file, context, cmd_timeout)
        self._with_secrets: set[str] = set()
        self._ended: set[str] = set()

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Create the job's secret and its pods, and return the job's id.

        Raises:
            SubmitException: the cluster refused one of them; those made before it are deleted.
            SubmitUnknown: the cluster did not answer; ``find`` by the tag says whether there are pods.
        """
        check_copies(tasks_per_node)
        job = self._job(command, tasks_per_node, job_name, extras)
        pods = [pod_name(job.job_id, node, self.nodes_per_block) for node in range(self.nodes_per_block)]
        try:
            if extras.secrets:
                with self._lock:
                    # Before the call: a secret whose creation got no answer may exist, and is then deleted with the
                    # job.
                    self._with_secrets.add(job.job_id)
                self._api.create("secret", secret(job, extras.secrets))
            for name in pods:
                self._api.create("pod", pod(name, job, self._pods))
        # What may exist is left alone: it is found by its tag, and may be running already.
        except SubmitUnknown:
            raise
        except ProviderError:
            self._take_back(job, pods)
            raise
        return self.note_submitted(job.job_id)

    def query(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of jobs from their pods, with one list call.

        Raises:
            SchedulerUnavailable: the API server does not answer now.
        """
        return jobs_of(self._api.pods(selector(list(job_ids))), self.walltime_s)

    def jobs_ended(self, job_ids: Sequence[str]) -> None:
        """Delete the secrets of ended jobs, and remember the jobs for ``close``. Never raises."""
        with self._lock:
            self._ended.update(job_ids)
            theirs = self._with_secrets.intersection(job_ids)
            self._with_secrets -= theirs
        for job in theirs:
            with suppress(ProviderError):
                self._api.delete("secret", job)

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Delete the pods and secrets of jobs; False for each job of which one could not be deleted.

        Raises:
            SchedulerUnavailable: the API server does not answer now; do it again.
        """
        wanted = dict.fromkeys(job_ids, True)
        if not wanted:
            return []
        labels = selector(list(wanted))
        for found in self._api.pods(labels):
            job, uid = text(at(found, "metadata", "labels"), JOB), text(at(found, "metadata"), "uid")
            # By uid, too: a pod of the same name that somebody made since then is not ours.
            if job in wanted and not self._api.delete("pod", _name(found), uid):
                wanted[job] = False
        # After the pods, which could not start without their secret. Listed, since the job may be of another process.
        for name in self._api.secrets(labels):
            if name in wanted and not self._api.delete("secret", name):
                wanted[name] = False
        self.note_cancelled([job for job, gone in wanted.items() if gone])
        return [wanted[job] for job in job_ids]

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the jobs whose pods carry a tag that starts with ``tag_prefix``.

        Raises:
            SchedulerUnavailable: the API server does not answer now.
        """
        labels = [at(found, "metadata", "labels") for found in self._api.pods(TAG)]
        jobs = [text(label, JOB) for label in labels if text(label, TAG).startswith(tag_prefix)]
        return list(dict.fromkeys(job for job in jobs if job))

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the end of the job's output, twice: Kubernetes keeps standard output and error in one log."""
        with suppress(ProviderError):
            logs = [self._api.log(_name(found), max_bytes) for found in self._api.pods(selector([job_id]))]
            merged = "".join(logs)[-max_bytes:]
            return merged, merged
        return "", ""

    def clear(self, job_ids: Sequence[str]) -> None:
        """Delete the pods of ended jobs, which a cluster keeps with their logs. Never raises."""
        with suppress(ProviderError):
            gone = [job for job, is_gone in zip(job_ids, self.cancel(job_ids), strict=True) if is_gone]
            with self._lock:
                self._ended.difference_update(gone)

    def close(self) -> None:
        """Delete the pods of jobs that were seen to end, and close connections. Idempotent; other jobs go on."""
        with self._lock:
            ended, self._ended = sorted(self._ended), set()
        with suppress(ProviderError):
            self.cancel(ended)
        self._api.close()

    def _job(self, command: str, tasks_per_node: int, job_name: str, extras: JobExtras) -> PodJob:
        # The time makes names readable in order; the random end makes them unique among processes.
        base = base_name(self.pod_name or job_name)
        job = job_id(base, time.time_ns() // 1_000_000, secrets.token_hex(2))
        names = tuple(name for name, _ in extras.secrets)
        told = (("FLOW_CORES", str(self.cores_per_node)), ("FLOW_MEMORY_GB", f"{self.mem_per_node:g}"))
        return PodJob(
            job_id=job,
            tag=check_tag(extras.tag or new_tag()),
            script=script_of(job, launch(self.launcher, command, tasks_per_node, 1), self.worker_init, names),
            environment=(*told, *((check_variable(name), value) for name, value in extras.environment)),
            secret_names=names,
        )

    def _take_back(self, job: PodJob, pods: Sequence[str]) -> None:
        """Delete the pods and the secret that were made for a job before it was refused."""
        with suppress(ProviderError):
            # Not the last one: either it is the one that was refused, or the refusal came before it.
            for name in pods[:-1]:
                self._api.delete("pod", name)
        self.jobs_ended([job.job_id])


def _name(found: Object) -> str:
    return text(at(found, "metadata"), "name")


def _id(option: str, value: str | int | None) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise BadOption(f"KubernetesProvider: option {option}={value!r} must be a number") from None


def _volumes(pairs: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or not pair[1].startswith("/"):
            raise BadOption(
                f"KubernetesProvider: persistent_volumes has {pair!r}: write pairs of a claim's name and an absolute "
                "directory, such as ('data', '/mnt/data')"
            )
    return tuple((pair[0], pair[1]) for pair in pairs)
