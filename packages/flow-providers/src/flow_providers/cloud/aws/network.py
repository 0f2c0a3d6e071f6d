"""The network that instances live in: made once a region, found again by the state file or by its tag."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flow_providers.cloud.aws.session import translated
from flow_providers.cloud.aws.state import Network
from flow_providers.cloud.refused import Refused
from flow_providers.errors import ProviderError

_TAG = "flow-network"
_NAME = "flow"
_RANGE = "10.0.0.0/16"  # the largest network that Amazon allows
_SUBNET_BITS = 20  # 16 subnets, more than any region has zones, of some 4,000 addresses each


def find_network(ec2: Any, known: Network | None) -> Network | None:  # boto3 has no types
    """Return the network: the known one if it is still there, else one of ours found by its tag, else None."""
    by_known = [{"Name": "vpc-id", "Values": [known.vpc_id]}] if known is not None else None
    by_tag = [{"Name": f"tag:{_TAG}", "Values": [_NAME]}, {"Name": "state", "Values": ["available"]}]
    with translated("list networks"):
        if by_known and list(ec2.vpcs.filter(Filters=by_known)):
            return known
        for vpc in ec2.vpcs.filter(Filters=by_tag):
            groups = [group.id for group in vpc.security_groups.all() if group.group_name != "default"]
            subnets = tuple(sorted(subnet.id for subnet in vpc.subnets.all()))
            if groups and subnets:
                return Network(vpc.id, groups[0], subnets)
    return None


def make_network(ec2: Any) -> Network:
    """Make a network with a route to the internet; it is removed again when a step fails.

    Raises:
        ProviderError: Amazon refused, such as for too many networks in the region.
    """
    undo: list[Callable[[], object]] = []
    try:
        with translated("make a network"):
            return _make(ec2, undo)
    except ProviderError:
        # Backwards, since Amazon deletes nothing that something else hangs on.
        for step in reversed(undo):
            # The first error is the one to report.
            with suppress(ProviderError), translated("remove an unfinished network"):
                step()
        raise


def open_route(vpc: Any, internet_gateway: Any) -> Any:
    """Make and return the route table by which the network reaches the internet, for all its subnets."""
    table = vpc.create_route_table(TagSpecifications=_tags("route-table"))
    table.create_route(DestinationCidrBlock="0.0.0.0/0", GatewayId=internet_gateway.internet_gateway_id)
    for subnet in vpc.subnets.all():
        table.associate_with_subnet(SubnetId=subnet.id)
    return table


def make_security_group(vpc: Any) -> Any:
    """Make and return the security group: pings may come in, within the network all may, and all may go out."""
    group = vpc.create_security_group(
        GroupName=_NAME, Description="Workers of Flow", TagSpecifications=_tags("security-group")
    )
    within = [{"CidrIp": _RANGE}]
    group.authorize_ingress(
        IpPermissions=[
            {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "IpRanges": within},
            {"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535, "IpRanges": within},
        ]
    )  # all may go out by default
    return group


def _make(ec2: Any, undo: list[Callable[[], object]]) -> Network:
    vpc = ec2.create_vpc(CidrBlock=_RANGE, TagSpecifications=_tags("vpc"))
    # After each step, at once: a failure of the next one must not leave this one behind, as a region allows few
    # networks.
    undo.append(vpc.delete)
    vpc.wait_until_available()
    vpc.modify_attribute(EnableDnsSupport={"Value": True})
    vpc.modify_attribute(EnableDnsHostnames={"Value": True})
    gateway = ec2.create_internet_gateway(TagSpecifications=_tags("internet-gateway"))
    undo.append(gateway.delete)
    gateway.attach_to_vpc(VpcId=vpc.id)
    undo.append(lambda: gateway.detach_from_vpc(VpcId=vpc.id))
    zones = ec2.meta.client.describe_availability_zones(Filters=[{"Name": "state", "Values": ["available"]}])
    names = [zone["ZoneName"] for zone in zones["AvailabilityZones"]]
    subnets = [_make_subnet(ec2, vpc, name, place, undo) for name, place in zip(names, _places(), strict=False)]
    if not subnets:
        raise Refused("NoZones", "the region has no availability zone that takes instances now")
    table = open_route(vpc, gateway)
    undo.extend([table.delete, lambda: _leave(table)])
    group = make_security_group(vpc)
    undo.append(group.delete)
    return Network(vpc.id, group.id, tuple(subnets))


def _make_subnet(ec2: Any, vpc: Any, zone: str, place: str, undo: list[Callable[[], object]]) -> str:
    subnet = vpc.create_subnet(CidrBlock=place, AvailabilityZone=zone, TagSpecifications=_tags("subnet"))
    undo.append(subnet.delete)
    ec2.meta.client.modify_subnet_attribute(SubnetId=subnet.id, MapPublicIpOnLaunch={"Value": True})
    return str(subnet.id)


def _leave(table: Any) -> None:
    table.reload()
    for association in table.associations:
        association.delete()


def _places() -> list[str]:
    return [str(subnet) for subnet in ipaddress.ip_network(_RANGE).subnets(new_prefix=_SUBNET_BITS)]


def _tags(kind: str) -> list[dict[str, object]]:
    return [{"ResourceType": kind, "Tags": [{"Key": _TAG, "Value": _NAME}, {"Key": "Name", "Value": _NAME}]}]
