"""The provider of Amazon's Elastic Compute Cloud: jobs as instances."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
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
from flow_providers.cloud.aws.network import find_network, make_network, make_security_group, open_route
from flow_providers.cloud.aws.parse import machine_of
from flow_providers.cloud.aws.session import make_ec2, make_session, translated
from flow_providers.cloud.aws.state import AwsState, Network, StateFile
from flow_providers.cloud.base import TAG, CloudProvider, MachineOrder
from flow_providers.cloud.machine import Machine
from flow_providers.cloud.options import CloudOptions, Linger
from flow_providers.cloud.refused import Refused
from flow_providers.errors import (
    ExecutionProviderException,
    ScaleOutFailed,
    SchedulerUnavailable,
    SubmitException,
    SubmitUnknown,
)
from flow_providers.jobs.ledger import default_ledger
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of
from flow_providers.sequences import listed

logger = logging.getLogger("flow.providers.aws")

_BATCH = 200  # values that Amazon takes in one filter
# Amazon's codes by which one zone cannot take the instance and another one may; every other refusal is final.
_FULL_ZONE = frozenset({"InsufficientInstanceCapacity", "Unsupported", "InsufficientFreeAddressesInSubnet"})
# Amazon's codes for instance types whose console has no "latest" output.
_NO_LATEST = frozenset({"UnsupportedOperation", "InvalidParameterCombination"})


# Two minutes ahead; the token is what instances with HttpTokens=required ask for.
_METADATA = "http://169.254.169.254/latest"
_SPOT_NOTICE = (
    "flow_token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "
    f'{_METADATA}/api/token) && curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $flow_token" '
    f"{_METADATA}/meta-data/spot/instance-action"
)


@documented
class AWSProvider(CloudProvider):
    """Runs each job on an instance of EC2, which ends itself when the job has ended.

    The first submission in a region makes a network (VPC) with a subnet in each availability zone; later ones, also of
    other runs, use it again. Instances carry the job's tag as ``flow-tag``; nothing without it is ever listed or ended.
    A job's secrets travel in its instance's user data, readable for all who may describe instances of the account.
    """

    label = "aws"

    @checked
    def __init__(
        self,
        image_id: Annotated[
            str,
            about("The machine image (AMI): Linux with cloud-init, which runs user data at the first boot."),
        ],
        key_name: Annotated[str, about("The key pair that ssh to the instances works with.")],
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        nodes_per_block: Annotated[int, about("Always 1.")] = 1,
        parallelism: Parallelism = 1,
        worker_init: WorkerInit = "",
        instance_type: Annotated[str, about("Kind of instance.")] = "t2.small",
        region: Annotated[str, about("Amazon's region.")] = "us-east-2",
        spot_max_bid: Annotated[
            float, about("Most US dollars an hour for spot instances; 0: instances on demand.")
        ] = 0,
        key_file: Annotated[str | None, about("JSON file with ``AWSAccessKeyId`` and ``AWSSecretKey``.")] = None,
        profile: Annotated[
            str | None,
            about(
                "Profile of ``~/.aws/config``, where there is no key file. Neither: AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of the environment, then boto3's other "
                "sources."
            ),
        ] = None,
        iam_instance_profile_arn: Annotated[str, about("Role of the instances.")] = "",
        state_file: Annotated[
            str | None,
            about("File that remembers the network; None: ``awsproviderstate-REGION.json`` beside the ledger of jobs."),
        ] = None,
        walltime: Annotated[str, about("``HH:MM:SS`` a command may run.")] = "01:00:00",
        linger: Linger = False,
        launcher: AnyLauncher = None,
        cmd_timeout: CmdTimeout = 30,
    ) -> None:
        super().__init__(record_of(CloudOptions, self))
        self.image_id = image_id
        self.key_name = key_name
        self.instance_type = instance_type
        self.region = region
        self.spot_max_bid = spot_max_bid
        self.spot_notice = _SPOT_NOTICE if spot_max_bid > 0 else ""
        self.key_file = key_file
        self.profile = profile
        self.iam_instance_profile_arn = iam_instance_profile_arn
        default = default_ledger().parent / f"awsproviderstate-{region}.json"
        self.state_file = str(default if state_file is None else Path(state_file).absolute())
        self._state = StateFile(Path(self.state_file), region)
        self._connecting = Lock()
        # Apart from _connecting: making a network takes a minute, and status must be able to ask meanwhile.
        self._network_lock = Lock()
        self._ec2: Any = None  # boto3 has no types
        self._network: Network | None = None
        self._last_started: str | None = None

    # -- the network and the session, also for use on their own

    def create_session(self) -> Any:
        """Return a boto3 session by ``key_file``, ``profile`` or the environment. BadOption: it cannot be."""
        return make_session(self.region, self.key_file, self.profile)

    def create_vpc(self) -> Network:
        """Make a new network: 10.0.0.0/16, a subnet 10.0.X.0/20 in each zone, routes and a security group."""
        network = make_network(self._resource())
        with self._network_lock:
            self._network = network
            self._state.write(network)
        return network

    def config_route_table(self, vpc: Any, internet_gateway: Any) -> Any:
        """Make and return a route table that leads all subnets of a boto3 ``Vpc`` to the internet."""
        with translated("make a route table"):
            return open_route(vpc, internet_gateway)

    def security_group(self, vpc: Any) -> Any:
        """Make and return a security group of a boto3 ``Vpc``: pings in, TCP and UDP within, everything out."""
        with translated("make a security group"):
            return make_security_group(vpc)

    def read_state_file(self, state_file: str | None = None) -> AwsState:
        """Return the contents of the state file. ExecutionProviderException: it cannot be used."""
        return (self._state if state_file is None else StateFile(Path(state_file), self.region)).read()

    def write_state_file(self) -> AwsState:
        """Write the network and the present states of all our instances, and return the new contents of the file."""
        return self._state.write(self._network, self.get_instance_state())

    # -- instances, also for use on their own

    def get_instance_state(self, instances: Sequence[str] | None = None) -> dict[str, str]:
        """Return EC2's own states of instances by id: of those given, or of all that carry a tag of ours."""
        found = self._describe(None if instances is None else listed(instances, "AWSProvider.get_instance_state"))
        return {str(instance["InstanceId"]): str(instance["State"]["Name"]) for instance in found}

    def spin_up_instance(self, command: str, job_name: str) -> str:
        """Start an instance that runs a command, and return its id; the same as submitting it."""
        return self.submit(command, 1, job_name)

    def shut_down_instance(self, instances: Sequence[str] | None = None) -> list[bool]:
        """End instances that carry a tag of ours, or the last that was started here."""
        last = [] if self._last_started is None else [self._last_started]
        return self.cancel(last if instances is None else instances)

    # -- the cloud's own

    def start_machine(self, order: MachineOrder) -> str:
        """Start an instance in the first availability zone that has room, and return its id.

        Raises:
            SubmitException: Amazon refused it, or the network could not be made.
            SubmitUnknown: Amazon did not answer; ``find`` by the tag says whether there is one.
            ScaleOutFailed: every zone of the region is full.
        """
        try:
            network = self._ready_network()
        # Nothing was asked of EC2 about an instance yet, so this is a sure "not submitted", whatever the network's
        # error was.
        except SchedulerUnavailable as error:
            raise SubmitException(f"job {order.name} was not submitted: {error}") from error
        full = []
        # A subnet is a zone, and capacity is a matter of zones.
        for subnet in network.subnet_ids:
            try:
                with translated("start an instance"):
                    started = self._resource().create_instances(**self._request(order, network, subnet))[0].id
            except Refused as refused:
                if refused.code not in _FULL_ZONE:
                    raise SubmitException(f"job {order.name} was not submitted: {refused}") from refused
                full.append(str(refused))
            except SchedulerUnavailable as error:
                raise SubmitUnknown(f"it is not known whether job {order.name} has an instance: {error}") from error
            else:
                self._last_started = str(started)
                self._note({str(started): "pending"})
                return str(started)
        raise ScaleOutFailed(f"no zone of {self.region} has an instance for job {order.name}: {'; '.join(full)}")

    def list_machines(self, job_ids: Sequence[str] | None) -> list[Machine]:
        """Return those of the given machines, or of all, that carry a tag of ours.

        Raises:
            SchedulerUnavailable: the cloud does not answer now.
        """
        return [machine_of(instance) for instance in self._describe(job_ids)]

    def end_machines(self, job_ids: Sequence[str]) -> set[str]:
        """Terminate those instances that carry a tag of ours, and return their ids.

        Raises:
            SchedulerUnavailable: Amazon does not answer now; do it again.
        """
        # Described first: an id without our tag is left out, whoever asks for its end.
        ours = [str(instance["InstanceId"]) for instance in self._describe(job_ids)]
        if ours:
            with translated("end instances"):
                self._resource().meta.client.terminate_instances(InstanceIds=ours)
            self._note(dict.fromkeys(ours, "terminated"))
        return set(ours)

    def read_console(self, job_id: str) -> str:
        """Return the newest end of an instance's console; empty where there is none yet.

        Raises:
            SchedulerUnavailable: Amazon does not answer now.
        """
        client = self._resource().meta.client
        try:
            with translated("read a console"):
                return str(client.get_console_output(InstanceId=job_id, Latest=True).get("Output") or "")
        except Refused as refused:  # older kinds of instances show it only some time after the end
            if refused.code not in _NO_LATEST:
                return ""
        with translated("read a console"):
            return str(client.get_console_output(InstanceId=job_id).get("Output") or "")

    def jobs_ended(self, job_ids: Sequence[str]) -> None:
        """Terminate the instances of ended jobs, unless they linger, and note that in the state file. Never raises."""
        super().jobs_ended(job_ids)
        if not self.linger and job_ids:
            self._note(dict.fromkeys(job_ids, "terminated"))

    # -- internals

    def _note(self, instances: dict[str, str]) -> None:
        """Write the states of instances to the state file; a failure is a warning only, since Amazon knows them too."""
        if not self._state.path.exists():
            return
        try:
            self._state.write(instances=instances)
        except ExecutionProviderException as error:
            logger.warning("%s", error)

    def _resource(self) -> Any:
        with self._connecting:
            if self._ec2 is None:
                self._ec2 = make_ec2(self.create_session(), self.cmd_timeout)
            return self._ec2

    def _ready_network(self) -> Network:
        with self._network_lock:
            if self._network is None:
                # Other runs share the file: without the lock, two that start together would each make a network, and
                # regions allow few.
                with self._state.locked():
                    found = find_network(self._resource(), self._state.read().network)
                    self._network = found or make_network(self._resource())
                    self._state.write_locked(self._network)
            return self._network

    def _describe(self, job_ids: Sequence[str] | None) -> list[dict[str, Any]]:
        """Return the instances among those given, or all, that carry a tag of ours."""
        ours: list[dict[str, object]] = [{"Name": "tag-key", "Values": [TAG]}]
        wanted = None if job_ids is None else list(job_ids)
        batches = [None] if wanted is None else [wanted[i : i + _BATCH] for i in range(0, len(wanted), _BATCH)]
        found: list[dict[str, Any]] = []
        with translated("list instances"):
            # By filter rather than by InstanceIds, which fails as a whole when one of the ids is unknown.
            pages = self._resource().meta.client.get_paginator("describe_instances")
            for batch in batches:
                filters = ours if batch is None else [*ours, {"Name": "instance-id", "Values": batch}]
                for page in pages.paginate(Filters=filters):
                    found.extend(instance for group in page["Reservations"] for instance in group["Instances"])
        return found

    def _request(self, order: MachineOrder, network: Network, subnet: str) -> dict[str, object]:
        tags = [{"Key": TAG, "Value": order.tag}, {"Key": "Name", "Value": order.name}]
        request: dict[str, object] = {
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": f"{order.name[-40:]}-{subnet[-8:]}",  # asked twice, Amazon starts one
            "ImageId": self.image_id,
            "InstanceType": self.instance_type,
            "KeyName": self.key_name,
            "SubnetId": subnet,
            "SecurityGroupIds": [network.group_id],
            "UserData": order.user_data,
            # So an instance costs nothing after its job even if the driver and its reaper are both gone.
            "InstanceInitiatedShutdownBehavior": "terminate",
            # User data holds the job's secrets: with tokens required, a forged request through a server on the
            # instance cannot read it.
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        }
        if self.iam_instance_profile_arn:
            request["IamInstanceProfile"] = {"Arn": self.iam_instance_profile_arn}
        if self.spot_max_bid > 0:
            spot = {"MaxPrice": f"{self.spot_max_bid:g}", "SpotInstanceType": "one-time"}
            request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
        return request
