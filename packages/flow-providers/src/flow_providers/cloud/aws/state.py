"""The state file: which network was made in Amazon's cloud, and which instances are in it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from flow_providers.errors import ExecutionProviderException
from flow_providers.folders import make_directory
from flow_providers.own_files import open_own


@dataclass(frozen=True, slots=True)
class Network:
    """A virtual private cloud with its security group, and a subnet in each availability zone."""

    vpc_id: str
    group_id: str
    subnet_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AwsState:
    """The contents of the state file: a network, if one was made, and the states of instances by their ids."""

    region: str
    network: Network | None = None
    instances: dict[str, str] = field(default_factory=dict)


class StateFile:
    """Reads and writes the state file; several processes may share it.

    Args:
        path: The file; made, with its directory, by the first write.
        region: The region its contents belong to.
    """

    def __init__(self, path: Path, region: str) -> None:
        self.path = path
        self._region = region

    def read(self) -> AwsState:
        """Return the contents; an empty state when there is no file.

        Raises:
            ExecutionProviderException: it cannot be read, is no state file, or is of another region.
        """
        try:
            with open(open_own(self.path, os.O_RDONLY)) as file:
                state = _state(json.load(file))
        except FileNotFoundError:
            return AwsState(self._region)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExecutionProviderException(
                f"the state file {self.path} cannot be used: {type(error).__name__}: {error}; mend it or name another"
            ) from error
        if state.region != self._region:
            raise ExecutionProviderException(
                f"the state file {self.path} is of region {state.region}, not {self._region}: name another state_file"
            )
        return state

    def write(self, network: Network | None = None, instances: dict[str, str] | None = None) -> AwsState:
        """Replace the network and the states of some instances, and return all. Locks out other processes."""
        with self.locked():
            return self.write_locked(network, instances)

    def write_locked(self, network: Network | None = None, instances: dict[str, str] | None = None) -> AwsState:
        """Do as ``write`` does, for a caller that holds the lock already."""
        old = self.read()
        merged = {**old.instances, **(instances or {})}
        # Terminated instances leave, or the file would grow with each job.
        alive = {key: state for key, state in merged.items() if state != "terminated"}
        state = replace(old, network=network or old.network, instances=alive)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with open(open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
                json.dump(_document(state), file, indent=1)
            # By rename, so that a reader, who does not lock, sees the old or the new contents.
            temporary.replace(self.path)
        except OSError as error:
            raise ExecutionProviderException(f"the state file {self.path} cannot be written: {error}") from error
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from making a network, or writing, at the same time."""
        try:
            make_directory(self.path.parent)
            # The directory is locked, not the file: each write puts another file in its place, and a lock belongs to
            # the old one.
            directory = os.open(self.path.parent, os.O_RDONLY)
        except OSError as error:
            raise ExecutionProviderException(f"the state file {self.path} cannot be written: {error}") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


def _state(document: dict[str, object]) -> AwsState:
    network = None
    subnets, instances = document.get("snIDs"), document.get("instances") or {}
    if document.get("vpcID"):
        if not isinstance(subnets, list):
            raise TypeError("snIDs is no list")
        network = Network(str(document["vpcID"]), str(document["sgID"]), tuple(str(subnet) for subnet in subnets))
    if not isinstance(instances, dict):
        raise TypeError("instances is no object")
    return AwsState(str(document["region"]), network, {str(key): str(value) for key, value in instances.items()})


def _document(state: AwsState) -> dict[str, object]:
    document: dict[str, object] = {"region": state.region, "instances": state.instances}
    if state.network is not None:
        document.update(vpcID=state.network.vpc_id, sgID=state.network.group_id, snIDs=list(state.network.subnet_ids))
    return document
