"""Azure's official clients: credentials, calls, errors."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.request import urlopen

from flow_providers.cloud.refused import Refused
from flow_providers.errors import BadOption, SchedulerUnavailable
from flow_providers.optional import optional_module

_PURPOSE = "AzureProvider"
_BUSY = 429  # HTTP: too many requests; asked again later, as after a fault of the server


class AzureClient:
    """Calls the compute and network services of one resource group. Any thread. Nothing is imported before use.

    Args:
        subscription_id: The subscription.
        group: The resource group.
        key_file: JSON file with ``tenantId``, ``clientId`` and ``clientSecret``; None: ``DefaultAzureCredential``.
        endpoint: Address of the resource manager; None: that of the public cloud.
        timeout_s: Seconds one call may take.
    """

    def __init__(
        self, subscription_id: str, group: str, key_file: str | None, endpoint: str | None, timeout_s: float
    ) -> None:
        self.group = group
        self._subscription_id = subscription_id
        self._key_file = key_file
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._clients: dict[str, Any] = {}  # the clients' types need their packages

    @property
    def machines(self) -> Any:
        """The client's operations on virtual machines; the client is made on first use."""
        return self._client("azure.mgmt.compute", "ComputeManagementClient").virtual_machines

    @property
    def networks(self) -> Any:
        """The client's operations on virtual networks; the client is made on first use."""
        return self._client("azure.mgmt.network", "NetworkManagementClient").virtual_networks

    def put(self, operations: Any, name: str, body: Mapping[str, object]) -> None:
        """Ask for a thing to be made, and do not wait for it. Refused, SchedulerUnavailable."""
        content = io.BytesIO(json.dumps(body).encode())  # as it goes over the wire, whatever the client's version
        with translated(f"make {name}"):
            operations.begin_create_or_update(
                self.group, name, content, content_type="application/json", polling=False
            ).result()

    def read_address(self, address: str) -> str:
        """Return the text at an address that Azure gave, the right to read included. SchedulerUnavailable."""
        try:
            with urlopen(address, timeout=self._timeout_s) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except OSError as error:
            raise SchedulerUnavailable(f"a console of Azure cannot be read now: {error}") from error

    def close(self) -> None:
        """Close connections. Idempotent; the next call opens them again."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _client(self, module: str, name: str) -> Any:
        with self._lock:
            if name not in self._clients:
                kind: Callable[..., Any] = getattr(optional_module(module, extra="azure", purpose=_PURPOSE), name)
                there = {}
                if self._endpoint:
                    there = {"base_url": self._endpoint, "credential_scopes": [f"{self._endpoint}/.default"]}
                self._clients[name] = kind(
                    make_credential(self._key_file),
                    self._subscription_id,
                    connection_timeout=self._timeout_s,
                    read_timeout=self._timeout_s,
                    retry_total=2,
                    **there,
                )
            return self._clients[name]


def make_credential(key_file: str | None) -> Any:
    """Return the credential of a key file, or Azure's default one. BadOption: the file cannot be used."""
    identity = optional_module("azure.identity", extra="azure", purpose=_PURPOSE)
    if key_file is None:
        return identity.DefaultAzureCredential()
    try:
        keys = json.loads(Path(key_file).expanduser().read_text())
        return identity.ClientSecretCredential(keys["tenantId"], keys["clientId"], keys["clientSecret"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadOption(
            f"AzureProvider: option key_file={key_file!r} must be a JSON file with tenantId, clientId and "
            f"clientSecret: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn Azure's errors into ours.

    Raises:
        Refused: Azure refused the call; the code is its HTTP code.
        SchedulerUnavailable: no answer, or an error of Azure's own.
    """
    exceptions = optional_module("azure.core.exceptions", extra="azure", purpose=_PURPOSE)
    try:
        yield
    except exceptions.ClientAuthenticationError as error:
        raise Refused("401", f"Azure refused the login: {error.message}") from error
    except exceptions.HttpResponseError as error:
        code = int(error.status_code or 0)
        if code >= 500 or code in (0, _BUSY):
            raise SchedulerUnavailable(f"Azure cannot {doing} now: {error.message}") from error
        raise Refused(str(code), f"Azure refused to {doing}: {error.message}") from error
    except exceptions.AzureError as error:
        raise SchedulerUnavailable(f"Azure does not answer when asked to {doing}: {error.message}") from error
