"""OpenStack's official client: one connection, errors."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from flow_providers.cloud.refused import Refused
from flow_providers.errors import SchedulerUnavailable
from flow_providers.optional import optional_module

T = TypeVar("T")
_PURPOSE = "JetstreamProvider"
_BUSY = 429  # HTTP: too many requests; asked again later, as after a fault of the server


class OpenStackClient:
    """Calls one cloud, one call at a time: the connection is for one thread. Nothing is imported before the first call.

    Args:
        cloud: Name in ``clouds.yaml``; None: ``$OS_CLOUD``, or the other ``OS_`` variables.
        region: The region; None: the cloud's only one.
        timeout_s: Seconds one call may take.
    """

    def __init__(self, cloud: str | None, region: str | None, timeout_s: float) -> None:
        self._cloud = cloud
        self._region = region
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._connection: Any = None  # the client's types need its package

    def call(self, doing: str, work: Callable[[Any], T]) -> T:
        """Return the result of ``work``, called with the connection. Other threads wait meanwhile.

        Raises:
            Refused: OpenStack refused the call; the code is its HTTP code.
            SchedulerUnavailable: no answer, or an error of OpenStack's own.
        """
        errors = optional_module("openstack.exceptions", extra="openstack", purpose=_PURPOSE)
        garbled = optional_module("requests.exceptions", extra="openstack", purpose=_PURPOSE)
        session = optional_module("keystoneauth1.exceptions", extra="openstack", purpose=_PURPOSE)
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = self._connect()
                return work(self._connection)
        except errors.NotFoundException as error:
            raise Refused("404", f"OpenStack has not what it takes to {doing}: {error}") from error
        except errors.HttpException as error:
            code = int(error.status_code or 0)
            if code >= 500 or code in (0, _BUSY):
                raise SchedulerUnavailable(f"OpenStack cannot {doing} now: {error}") from error
            raise Refused(str(code), f"OpenStack refused to {doing}: {error}") from error
        except errors.ConfigException as error:
            raise Refused(
                "config", f"no way to an OpenStack cloud: {error}; write clouds.yaml, or set OS_CLOUD"
            ) from error
        except session.Unauthorized as error:
            raise Refused("401", f"OpenStack refused the login: {error}") from error
        except (session.ClientException, errors.SDKException) as error:
            raise SchedulerUnavailable(f"OpenStack does not answer when asked to {doing}: {error}") from error
        except garbled.JSONDecodeError as error:  # the client lets through what is below it
            raise SchedulerUnavailable(f"OpenStack's answer to {doing} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the connection. Idempotent; the next call opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> Any:
        openstack = optional_module("openstack", extra="openstack", purpose=_PURPOSE)
        region = {"region_name": self._region} if self._region else {}
        return openstack.connect(cloud=self._cloud, api_timeout=self._timeout_s, app_name="flow", **region)
