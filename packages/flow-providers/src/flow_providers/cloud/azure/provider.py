"""The provider of Azure: jobs as virtual machines."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
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
from flow_providers.cloud.azure.client import AzureClient, translated
from flow_providers.cloud.azure.parse import MachineOptions, body_of, image_of, machine_of, network_body
from flow_providers.cloud.base import TAG, CloudProvider, MachineOrder
from flow_providers.cloud.machine import Machine
from flow_providers.cloud.options import CloudOptions, Linger, MachineWalltime
from flow_providers.cloud.refused import Refused
from flow_providers.errors import SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of

_NETWORK = "flow-network"
_SUBNET = "flow"
_GONE = "404"  # the code of Refused for a thing that does not exist


# Half a minute ahead at least; the first question may take long, since it turns the service on.
_SPOT_NOTICE = (
    "curl -sf -m 5 -H Metadata:true 'http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01' "
    "| grep -q '\"Preempt\"'"
)


@documented
class AzureProvider(CloudProvider):
    """Runs each job on a virtual machine of one resource group, which is deleted when the job has ended.

    The machine's disk, network interface and address go with it. Machines carry the job's tag as ``flow-tag``; nothing
    without it is ever listed or deleted. Login: by the key file, else by ``DefaultAzureCredential``
    (environment, ``az login``, managed identity).
    """

    label = "azure"
    user_data_limit = 65535  # bytes; Azure's limit of customData

    @checked
    def __init__(
        self,
        subscription_id: Annotated[str, about("The subscription.")],
        resource_group: Annotated[str, about("The group; it must exist.")],
        location: Annotated[str, about("Azure's region, such as ``'westeurope'``.")],
        image: Annotated[
            str, about("``'publisher:offer:sku:version'``, or the id of an image: Linux with cloud-init.")
        ],
        ssh_public_key: Annotated[str, about("The key that ssh to the machines works with, as text; Azure wants one.")],
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        worker_init: WorkerInit = "",
        instance_type: Annotated[str, about("Size of the machines.")] = "Standard_D2s_v5",
        admin_username: Annotated[str, about("The user that the key lets in.")] = "flow",
        subnet_id: Annotated[
            str | None,
            about("Subnet of the machines; None: one of a network ``flow-network`` that the first submission makes."),
        ] = None,
        public_ip: Annotated[
            bool,
            about(
                "Whether machines get a public address; without one, the subnet needs another route to the internet."
            ),
        ] = True,
        spot_max_bid: Annotated[float, about("Most US dollars an hour for spot machines; 0: machines on demand.")] = 0,
        key_file: Annotated[
            str | None, about("JSON file with ``tenantId``, ``clientId`` and ``clientSecret``.")
        ] = None,
        walltime: MachineWalltime = None,
        linger: Linger = False,
        launcher: AnyLauncher = None,
        cmd_timeout: CmdTimeout = 60,
        api_endpoint: Annotated[
            str | None, about("Address of the resource manager of another cloud than the public one.")
        ] = None,
    ) -> None:
        super().__init__(record_of(CloudOptions, self))
        self.location = location
        self.subnet_id = subnet_id
        self.spot_notice = _SPOT_NOTICE if spot_max_bid > 0 else ""
        self._machine = MachineOptions(
            location, image_of(image), instance_type, admin_username, ssh_public_key, public_ip, spot_max_bid
        )
        self._client = AzureClient(subscription_id, resource_group, key_file, api_endpoint, cmd_timeout)
        self._network_lock = Lock()
        self._subnet = subnet_id

    def start_machine(self, order: MachineOrder) -> str:
        """Start a virtual machine, after making the network if there is none, and return its name.

        Raises:
            SubmitException: Azure refused it, or the network could not be made.
            SubmitUnknown: Azure did not answer; ``find`` by the tag says whether there is one.
        """
        try:
            subnet = self._ready_subnet()
        except SchedulerUnavailable as error:
            raise SubmitException(f"job {order.name} was not submitted: {error}") from error
        try:
            self._client.put(self._client.machines, order.name, body_of(order, self._machine, subnet))
        except Refused as refused:
            raise SubmitException(f"job {order.name} was not submitted: {refused}") from refused
        except SchedulerUnavailable as error:
            raise SubmitUnknown(f"it is not known whether job {order.name} has a machine: {error}") from error
        return order.name

    def list_machines(self, job_ids: Sequence[str] | None) -> list[Machine]:
        """Return those of the given machines, or of all, that carry a tag of ours.

        Raises:
            SchedulerUnavailable: the cloud does not answer now.
        """
        wanted = None if job_ids is None else set(job_ids)
        with translated("list machines"):
            # Azure has no filter by tag for virtual machines: all of the group are listed, and the others left out
            # here.
            ours = [vm for vm in self._client.machines.list(self._client.group) if TAG in (vm.tags or {})]
            ours = [vm for vm in ours if wanted is None or vm.name in wanted]
            # One more call brings the power states of all machines; a call for each machine would be throttled.
            views = list(self._client.machines.list_all(status_only="true")) if ours else []
        # Azure writes ids in different case in different answers.
        statuses = {str(vm.id).lower(): _statuses(vm) for vm in views}
        return [
            machine_of(str(vm.name), str(vm.tags[TAG]), statuses.get(str(vm.id).lower(), []), _created(vm))
            for vm in ours
        ]

    def end_machines(self, job_ids: Sequence[str]) -> set[str]:
        """Delete those machines that carry a tag of ours, and return the names of those that are gone or going.

        Raises:
            SchedulerUnavailable: Azure does not answer now; do it again.
        """
        return {machine.job_id for machine in self.list_machines(job_ids) if self._delete(machine.job_id)}

    def read_console(self, job_id: str) -> str:
        """Return the serial console of a machine, from its boot diagnostics; empty where there is none yet.

        Raises:
            SchedulerUnavailable: Azure does not answer now.
        """
        try:
            with translated("read a console"):
                found = self._client.machines.retrieve_boot_diagnostics_data(self._client.group, job_id)
        # No console yet, or a machine that is gone: there is nothing to read either way.
        except Refused:
            return ""
        address = found.serial_console_log_blob_uri
        return self._client.read_address(str(address)) if address else ""

    def close(self) -> None:
        """Close the client's connections. Idempotent; machines stay on."""
        self._client.close()

    # -- internals

    def _ready_subnet(self) -> str:
        """Return the subnet's id, making a network if there is none."""
        with self._network_lock:
            if self._subnet is None:
                self._subnet = self._find_subnet() or self._make_subnet()
            return self._subnet

    def _find_subnet(self) -> str | None:
        try:
            with translated("look for the network"):
                subnets = self._client.networks.get(self._client.group, _NETWORK).subnets or []
        except Refused as refused:
            if refused.code == _GONE:
                return None
            raise
        return str(subnets[0].id) if subnets else None

    def _make_subnet(self) -> str:
        self._client.put(self._client.networks, _NETWORK, network_body(self.location, _SUBNET))
        found = self._find_subnet()
        if found is None:
            raise SchedulerUnavailable(f"the network {_NETWORK} was made and is not there yet: try again")
        return found

    def _delete(self, name: str) -> bool:
        # Forced, as the job is over and nothing needs an orderly shutdown. Not waited for, as it takes minutes.
        try:
            with translated("delete a machine"):
                self._client.machines.begin_delete(
                    self._client.group, name, force_deletion=True, polling=False
                ).result()
        except Refused as refused:
            return refused.code == _GONE
        return True


def _statuses(vm: Any) -> list[tuple[str, str]]:
    found = getattr(vm.instance_view, "statuses", None) or []
    return [(str(status.code), str(status.message or "")) for status in found]


def _created(vm: Any) -> float | None:
    created = getattr(vm, "time_created", None)
    return None if created is None else float(created.timestamp())
