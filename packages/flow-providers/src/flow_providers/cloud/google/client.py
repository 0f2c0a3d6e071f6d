"""Google's official client: credentials, one connection a call, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from flow_providers.cloud.refused import Refused
from flow_providers.errors import BadOption, SchedulerUnavailable
from flow_providers.optional import optional_module

_SCOPE = "https://www.googleapis.com/auth/compute"
_BUSY = 429  # HTTP: too many requests; asked again later, as after a fault of the server


class ComputeClient:
    """Calls the compute API of one project. Any thread. Nothing is imported or connected before the first call.

    Args:
        project: The project's id.
        key_file: Key of a service account, a JSON file.
        version: ``v1`` or ``beta``.
        endpoint: Address of the API; None: Google's.
        timeout_s: Seconds one call may take.
    """

    def __init__(self, project: str, key_file: str, version: str, endpoint: str | None, timeout_s: float) -> None:
        self.project = project
        self._key_file = key_file
        self._version = version
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._connection: tuple[Any, Any] | None = None  # the client has no types

    def call(self, collection: str, method: str, **arguments: object) -> dict[str, Any]:
        """Call a method of a collection, such as ``instances`` ``get``; its project is ours unless one is given.

        Raises:
            Refused: Google refused the call.
            SchedulerUnavailable: no answer, or an error of Google's own.
            BadOption: the key file cannot be used.
        """
        service, credentials = self._connected()
        request = getattr(getattr(service, collection)(), method)(**{"project": self.project, **arguments})
        return self._execute(request, credentials)

    def pages(self, collection: str, method: str, **arguments: object) -> Iterator[dict[str, Any]]:
        """Call a method that lists, and return its pages. Raises as ``call``."""
        token: object = ""
        while token is not None:
            page = self.call(collection, method, **arguments, **({"pageToken": token} if token else {}))
            yield page
            token = page.get("nextPageToken")

    def _execute(self, request: Any, credentials: Any) -> dict[str, Any]:
        httplib2 = optional_module("httplib2", extra="google", purpose="GoogleCloudProvider")
        wrapper = optional_module("google_auth_httplib2", extra="google", purpose="GoogleCloudProvider")
        errors = optional_module("googleapiclient.errors", extra="google", purpose="GoogleCloudProvider")
        auth = optional_module("google.auth.exceptions", extra="google", purpose="GoogleCloudProvider")
        connection = httplib2.Http(timeout=self._timeout_s)  # a connection is for one thread only
        try:
            answer: dict[str, Any] = request.execute(http=wrapper.AuthorizedHttp(credentials, http=connection))
        except errors.HttpError as error:
            code = int(error.status_code)
            if code >= 500 or code == _BUSY:
                raise SchedulerUnavailable(f"Google has an error of its own: {error.reason}") from error
            raise Refused(str(code), f"{error.reason} (HTTP {code})") from error
        except auth.RefreshError as error:
            raise Refused("401", f"the key {self._key_file} was not accepted: {error}") from error
        except (auth.GoogleAuthError, httplib2.HttpLib2Error, OSError) as error:
            raise SchedulerUnavailable(f"Google does not answer: {error}") from error
        finally:
            connection.close()
        return answer

    def _connected(self) -> tuple[Any, Any]:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> tuple[Any, Any]:
        accounts = optional_module("google.oauth2.service_account", extra="google", purpose="GoogleCloudProvider")
        discovery = optional_module("googleapiclient.discovery", extra="google", purpose="GoogleCloudProvider")
        load: Callable[..., Any] = accounts.Credentials.from_service_account_file
        try:
            credentials = load(str(Path(self._key_file).expanduser()), scopes=[_SCOPE])
        except (OSError, ValueError) as error:
            raise BadOption(
                f"GoogleCloudProvider: option key_file={self._key_file!r} must be the JSON key of a service account: "
                f"{error}"
            ) from error
        options = {"client_options": {"api_endpoint": self._endpoint}} if self._endpoint else {}
        # The description of the API comes with the client; without a cache, nothing is written to the user's home.
        service = discovery.build("compute", self._version, credentials=credentials, cache_discovery=False, **options)
        return service, credentials
