"""Ways to find the address at which workers reach this machine."""

from flow_executors.addresses import (
    address_by_hostname as address_by_hostname,
    address_by_interface as address_by_interface,
    address_by_query as address_by_query,
    address_by_route as address_by_route,
)
