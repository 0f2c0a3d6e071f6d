"""The provider of Google's Compute Engine: jobs as instances."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from flow_providers.block_options import (
    AnyLauncher,
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    Parallelism,
    WorkerInit,
)
from flow_providers.cloud.base import TAG, CloudProvider, MachineOrder
from flow_providers.cloud.google.client import ComputeClient
from flow_providers.cloud.google.parse import body_of, job_id_of, machine_of, zone_and_name
from flow_providers.cloud.machine import Machine
from flow_providers.cloud.options import CloudOptions, Linger, MachineWalltime
from flow_providers.cloud.refused import Refused
from flow_providers.errors import BadOption, ScaleOutFailed, SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of

# Google's codes by which one zone has no room and another one may; every other error is final.
_FULL_ZONE = ("ZONE_RESOURCE_POOL_EXHAUSTED", "STOCKOUT")
# Seconds between a command's walltime and the instance's, for booting and ending. Only the magnitude matters: it is the
# last resort, for instances that neither end themselves nor are ended.
_NET_S = 900
_GONE = "404"  # the code of Refused for a thing that does not exist


# Half a minute ahead.
_SPOT_NOTICE = (
    "[ \"$(curl -sf -m 2 -H 'Metadata-Flavor: Google' "
    'http://169.254.169.254/computeMetadata/v1/instance/preempted)" = TRUE ]'
)


@documented
class GoogleCloudProvider(CloudProvider):
    """Runs each job on an instance of Compute Engine, which is deleted when the job has ended.

    Instances carry the job's tag as the label ``flow-tag``; nothing without it is ever listed or deleted. A job's
    secrets travel in its instance's metadata, which whoever may describe instances of the project can read. Google
    forgets the console of an instance that is off, so instances stay on for a minute and a half after their jobs;
    ask for their status more often than that.
    """

    label = "google"
    user_data_limit = 262144  # bytes; Google's limit of one value of the metadata
    settle_s = 90  # seconds: Google forgets the console of an instance that is off, so it has to be read before
    reads_running_consoles = True

    @checked
    def __init__(
        self,
        project_id: Annotated[str, about("The project.")],
        key_file: Annotated[str, about("JSON key of a service account.")],
        region: Annotated[str, about("Where instances start: in any zone of it.")],
        os_project: Annotated[str, about("Project of the image, such as ``'debian-cloud'``.")],
        os_family: Annotated[str, about("Family of the image, such as ``'debian-12'``.")],
        google_version: Annotated[str, about("``'v1'`` or ``'beta'``.")] = "v1",
        instance_type: Annotated[str, about("Machine type.")] = "n1-standard-1",
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        launcher: AnyLauncher = None,
        parallelism: Parallelism = 1,
        worker_init: WorkerInit = "",
        walltime: MachineWalltime = None,
        linger: Linger = False,
        spot: Annotated[bool, about("Whether Google may take instances away, for less money.")] = False,
        cmd_timeout: CmdTimeout = 60,
        api_endpoint: Annotated[str | None, about("Address of the API, for private endpoints; None: Google's.")] = None,
    ) -> None:
        if google_version not in ("v1", "beta"):
            raise BadOption(f"GoogleCloudProvider: option google_version={google_version!r} must be 'v1' or 'beta'")
        super().__init__(record_of(CloudOptions, self))
        self.project_id = project_id
        self.region = region
        self.os_project = os_project
        self.os_family = os_family
        self.instance_type = instance_type
        self.spot = spot
        self.spot_notice = _SPOT_NOTICE if spot else ""
        self._client = ComputeClient(project_id, key_file, google_version, api_endpoint, cmd_timeout)

    def start_machine(self, order: MachineOrder) -> str:
        """Start an instance in the first zone of the region that has room, and return ``zone/name`` as its id.

        Raises:
            SubmitException: Google refused it, or the region has no zones.
            SubmitUnknown: Google did not answer; ``find`` by the tag says whether there is one.
            ScaleOutFailed: every zone of the region is full.
        """
        zones, image = self._zones_and_image(order)
        full = []
        for zone in zones:
            operation = self._insert(order, zone, image)
            wrong = [f"{error.get('code')}: {error.get('message')}" for error in _errors(operation)]
            if not wrong:
                return job_id_of(zone, order.name)
            if not any(word.startswith(_FULL_ZONE) for word in wrong):
                raise SubmitException(f"Google refused an instance for job {order.name}: {'; '.join(wrong)}")
            full.extend(wrong)
        raise ScaleOutFailed(f"no zone of {self.region} has an instance for job {order.name}: {'; '.join(full)}")

    def list_machines(self, job_ids: Sequence[str] | None) -> list[Machine]:
        """Return those of the given machines, or of all, that carry a tag of ours.

        Raises:
            SchedulerUnavailable: the cloud does not answer now.
        """
        wanted = None if job_ids is None else set(job_ids)
        found: list[Machine] = []
        for page in self._client.pages("instances", "aggregatedList", filter=f"labels.{TAG}:*", maxResults=500):
            for place in (page.get("items") or {}).values():
                # Places without instances have a warning in place of the list.
                found.extend(machine_of(instance) for instance in place.get("instances") or [])
        # The label is in lower case, as Google wants it; the tag is read from the metadata, as it was given.
        return [m for m in found if m.tag and (wanted is None or m.job_id in wanted)]

    def end_machines(self, job_ids: Sequence[str]) -> set[str]:
        """Delete those instances that carry a tag of ours, and return the ids of those that are gone or going.

        Raises:
            SchedulerUnavailable: Google does not answer now; do it again.
        """
        return {machine.job_id for machine in self.list_machines(job_ids) if self._delete(machine.job_id)}

    def read_console(self, job_id: str) -> str:
        """Return the first serial port's output; empty for an instance that is off, since Google forgets it then.

        Raises:
            SchedulerUnavailable: Google does not answer now.
        """
        zone, name = zone_and_name(job_id)
        try:
            answer = self._client.call("instances", "getSerialPortOutput", zone=zone, instance=name, port=1)
        # An instance that is off, or gone: Google has forgotten its console.
        except Refused:
            return ""
        return str(answer.get("contents", ""))

    # -- internals

    def _zones_and_image(self, order: MachineOrder) -> tuple[list[str], str]:
        try:
            listed = [zone for page in self._client.pages("zones", "list") for zone in page.get("items") or []]
            zones = [str(zone["name"]) for zone in listed if str(zone.get("region", "")).endswith(f"/{self.region}")]
            image = self._client.call("images", "getFromFamily", project=self.os_project, family=self.os_family)
        except SchedulerUnavailable as error:
            raise SubmitException(f"job {order.name} was not submitted: {error}") from error
        if not zones:
            raise SubmitException(f"job {order.name} was not submitted: region {self.region!r} has no zones")
        return zones, str(image["selfLink"])

    def _insert(self, order: MachineOrder, zone: str, image: str) -> dict[str, Any]:
        limit = int(self.walltime_s) + _NET_S if self.walltime_s is not None and not self.linger else 0
        body = body_of(order, zone, self.instance_type, image, self.spot, limit)
        once = str(uuid.uuid4())  # asked twice, Google starts one
        try:
            operation = self._client.call("instances", "insert", zone=zone, body=body, requestId=once)
            return self._waited(operation, zone)
        except Refused as refused:
            raise SubmitException(f"Google refused an instance for job {order.name}: {refused}") from refused
        except SchedulerUnavailable as error:
            raise SubmitUnknown(f"it is not known whether job {order.name} has an instance: {error}") from error

    def _waited(self, operation: dict[str, Any], zone: str) -> dict[str, Any]:
        """Return an operation when it is done, or as it is when that takes too long: it goes on."""
        deadline = time.monotonic() + self.cmd_timeout
        while operation.get("status") != "DONE" and time.monotonic() < deadline:
            # Seconds; an insertion takes several, and a project has a quota of reads.
            time.sleep(0.2)
            operation = self._client.call("zoneOperations", "get", zone=zone, operation=operation["name"])
        return operation

    def _delete(self, job_id: str) -> bool:
        zone, name = zone_and_name(job_id)
        try:
            self._client.call("instances", "delete", zone=zone, instance=name)
        except Refused as refused:
            return refused.code == _GONE
        return True


def _errors(operation: dict[str, Any]) -> list[dict[str, Any]]:
    found = (operation.get("error") or {}).get("errors") or []
    return [error for error in found if isinstance(error, dict)]
