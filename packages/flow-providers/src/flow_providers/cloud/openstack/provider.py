"""The provider of OpenStack clouds, such as Jetstream: jobs as servers."""

from __future__ import annotations

from base64 import b64encode
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
from flow_providers.cloud.machine import Machine
from flow_providers.cloud.openstack.client import OpenStackClient
from flow_providers.cloud.openstack.parse import machine_of
from flow_providers.cloud.options import CloudOptions, Linger, MachineWalltime
from flow_providers.cloud.refused import Refused
from flow_providers.errors import SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of

_GONE = "404"  # the code of Refused for a thing that does not exist
# The fields of a server that the parser reads; it takes plain values, so that tests need no client.
_FIELDS = ("id", "status", "fault", "metadata", "addresses", "launched_at")


@documented
class JetstreamProvider(CloudProvider):
    """Runs each job on a server of an OpenStack cloud, which is deleted when the job has ended.

    Servers carry the job's tag as the metadata item ``flow-tag``; nothing without it is ever listed or deleted.
    """

    label = "jetstream"
    user_data_limit = 49151  # bytes; 65535 in base64, which is what OpenStack takes

    @checked
    def __init__(
        self,
        image: Annotated[str, about("Name or id of the image: Linux with cloud-init.")],
        flavor: Annotated[str, about("Name or id of the flavour.")],
        cloud: Annotated[
            str | None,
            about("Name of the cloud in ``clouds.yaml``; None: ``$OS_CLOUD``, or the other ``OS_`` variables."),
        ] = None,
        region: Annotated[str | None, about("The region; None: the cloud's only one.")] = None,
        network: Annotated[
            str | None, about("Name or id of the network; None: the only one, or the one OpenStack makes.")
        ] = None,
        key_name: Annotated[str | None, about("The key pair that ssh to the servers works with.")] = None,
        security_groups: Annotated[Sequence[str], about("Names of the security groups; none: the default one.")] = (),
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        worker_init: WorkerInit = "",
        walltime: MachineWalltime = None,
        linger: Linger = False,
        launcher: AnyLauncher = None,
        cmd_timeout: CmdTimeout = 60,
    ) -> None:
        super().__init__(record_of(CloudOptions, self))
        self.image = image
        self.flavor = flavor
        self.network = network
        self.key_name = key_name
        self.security_groups = tuple(security_groups)
        self._client = OpenStackClient(cloud, region, cmd_timeout)

    def start_machine(self, order: MachineOrder) -> str:
        """Make a server and return its id.

        Raises:
            SubmitException: OpenStack refused it, or image, flavour or network could not be looked up.
            SubmitUnknown: OpenStack did not answer; ``find`` by the tag says whether there is one.
        """
        try:
            request = self._client.call("find image, flavour and network", lambda cloud: self._request(cloud, order))
        except SchedulerUnavailable as error:
            raise SubmitException(f"job {order.name} was not submitted: {error}") from error
        try:
            return self._client.call("make a server", lambda cloud: str(cloud.compute.create_server(**request).id))
        except Refused as refused:
            raise SubmitException(f"job {order.name} was not submitted: {refused}") from refused
        except SchedulerUnavailable as error:
            raise SubmitUnknown(f"it is not known whether job {order.name} has a server: {error}") from error

    def list_machines(self, job_ids: Sequence[str] | None) -> list[Machine]:
        """Return those of the given machines, or of all, that carry a tag of ours.

        Raises:
            SchedulerUnavailable: the cloud does not answer now.
        """
        wanted = None if job_ids is None else set(job_ids)
        # Metadata cannot be filtered by the API: all servers of the project are listed, and the others left out here.
        servers = self._client.call("list servers", lambda cloud: list(cloud.compute.servers(details=True)))
        machines = [machine_of({key: getattr(server, key) for key in _FIELDS}) for server in servers]
        return [m for m in machines if m.tag and (wanted is None or m.job_id in wanted)]

    def end_machines(self, job_ids: Sequence[str]) -> set[str]:
        """Delete those servers that carry a tag of ours, and return the ids of those that are gone or going.

        Raises:
            SchedulerUnavailable: OpenStack does not answer now; do it again.
        """
        return {machine.job_id for machine in self.list_machines(job_ids) if self._delete(machine.job_id)}

    def read_console(self, job_id: str) -> str:
        """Return the console log of a server; empty where there is none.

        Raises:
            SchedulerUnavailable: OpenStack does not answer now.
        """
        try:
            answer = self._client.call("read a console", lambda cloud: cloud.compute.get_server_console_output(job_id))
        except Refused:
            return ""
        return str(answer.get("output") or "")

    def close(self) -> None:
        """Close the client's connections. Idempotent; machines stay on."""
        self._client.close()

    # -- internals

    def _request(self, cloud: Any, order: MachineOrder) -> dict[str, object]:
        network = cloud.network.find_network(self.network, ignore_missing=False).id if self.network else None
        request: dict[str, object] = {
            "name": order.name,
            "image_id": cloud.image.find_image(self.image, ignore_missing=False).id,
            "flavor_id": cloud.compute.find_flavor(self.flavor, ignore_missing=False).id,
            # "auto" takes the project's only network, or has OpenStack make one.
            "networks": [{"uuid": network}] if network else "auto",
            "user_data": b64encode(order.user_data.encode()).decode(),
            "metadata": {TAG: order.tag},
        }
        if self.key_name:
            request["key_name"] = self.key_name
        if self.security_groups:
            request["security_groups"] = [{"name": name} for name in self.security_groups]
        return request

    def _delete(self, job_id: str) -> bool:
        try:
            self._client.call(
                "delete a server", lambda cloud: cloud.compute.delete_server(job_id, ignore_missing=False)
            )
        except Refused as refused:
            return refused.code == _GONE
        return True
