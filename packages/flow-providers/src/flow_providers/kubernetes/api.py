"""The few calls to the API server that jobs need, through the official client; plain documents in and out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from flow_providers.errors import ExecutionProviderException, SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.kubernetes.parse import Json, Object, at, items, text
from flow_providers.optional import optional_module

_PAGE = 500  # pods in one answer, as kubectl asks for; keeps answers small
_TRIES = 3  # tries of a creation without an answer; the name makes a second creation fail, so trying is safe
# HTTP codes of the API server.
_GONE, _CONFLICT, _BUSY, _FORBIDDEN = 404, 409, 429, 403


class KubernetesApi:
    """Calls one namespace of one cluster. Any thread. Nothing is imported or connected before the first call.

    Args:
        namespace: The namespace.
        config_file: Kube config; None: ``$KUBECONFIG`` or ``~/.kube/config``, else the account of the pod we are in.
        context: Context of the kube config; None: its current one.
        timeout_s: Seconds one call may take.
    """

    def __init__(self, namespace: str, config_file: str | None, context: str | None, timeout_s: float) -> None:
        self._namespace = namespace
        self._config_file = config_file
        self._context = context
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._core: Any = None  # kubernetes has no types

    def pods(self, label_selector: str) -> list[Object]:
        """Return all pods that carry some labels. SchedulerUnavailable."""
        return list(self._pages("list_namespaced_pod", label_selector))

    def secrets(self, label_selector: str) -> list[str]:
        """Return the labels' secrets by name; none where listing them is forbidden. SchedulerUnavailable."""
        try:
            return [
                text(at(found, "metadata"), "name") for found in self._pages("list_namespaced_secret", label_selector)
            ]
        except _Refused as refused:
            # An account may be allowed to create and delete secrets, and not to list them.
            if refused.code == _FORBIDDEN:
                return []
            raise

    def create(self, kind: str, manifest: Mapping[str, Json]) -> None:
        """Create a ``pod`` or ``secret`` of a unique name, so that trying again is safe.

        Raises:
            SubmitException: the server refused it, in its own words.
            SubmitUnknown: no answer.
        """
        name = text(at(manifest, "metadata"), "name")
        for turn in range(_TRIES):
            try:
                self._call(f"create_namespaced_{kind}", self._namespace, manifest)
            except _Refused as refused:
                if refused.code == _CONFLICT and turn > 0:
                    return  # it was our own, whose answer got lost
                raise SubmitException(f"Kubernetes refused the {kind} {name}: {refused}") from refused
            except SchedulerUnavailable as error:
                if turn == _TRIES - 1:
                    raise SubmitUnknown(f"it is not known whether the {kind} {name} was created: {error}") from error
            else:
                return

    def delete(self, kind: str, name: str, uid: str = "") -> bool:
        """Delete a ``pod`` or ``secret`` if it is there; False: the server refused. SchedulerUnavailable."""
        # The server compares: a pod of the same name that was made since the listing stays.
        options = {"preconditions": {"uid": uid}} if uid else {}
        try:
            self._call(f"delete_namespaced_{kind}", name, self._namespace, body=options)
        except _Refused as refused:
            return refused.code in (_GONE, _CONFLICT)  # a conflict: another of that name, so ours is gone
        return True

    def log(self, pod: str, max_bytes: int) -> str:
        """Return the end of a pod's output; empty where there is none."""
        try:
            content = self._call("read_namespaced_pod_log", pod, self._namespace, tail_lines=max_bytes)
        except ExecutionProviderException:
            return ""
        return content[-max_bytes:].decode("utf-8", "replace") if max_bytes > 0 else ""

    def close(self) -> None:
        """Close connections. Idempotent; the next call opens them again."""
        with self._lock:
            core, self._core = self._core, None
        if core is not None:
            core.api_client.close()

    def _pages(self, method: str, label_selector: str) -> Iterator[Object]:
        token: str | None = None
        while token != "":
            more = {"_continue": token} if token else {}
            page = json.loads(self._call(method, self._namespace, label_selector=label_selector, limit=_PAGE, **more))
            yield from items(page)
            token = text(at(page, "metadata"), "continue")

    def _call(self, method: str, *arguments: object, **options: object) -> bytes:
        """Return the body of an answer. _Refused: the server refused the call; SchedulerUnavailable: no answer."""
        call: Callable[..., Any] = getattr(self._client(), method)
        from urllib3.exceptions import HTTPError  # comes with the client, which is there now

        exceptions = optional_module("kubernetes.client.exceptions", extra="kubernetes", purpose="KubernetesProvider")
        try:
            answer = call(*arguments, **options, _preload_content=False, _request_timeout=self._timeout_s)
            content: bytes = answer.data
        except exceptions.ApiException as error:
            code = int(error.status or 0)
            if code >= 500 or code in (0, _BUSY):
                raise SchedulerUnavailable(f"the API server of Kubernetes answers {_words(error)}") from error
            raise _Refused(code, _words(error)) from error
        except (HTTPError, OSError) as error:
            raise SchedulerUnavailable(f"the API server of Kubernetes does not answer: {error}") from error
        return content

    def _client(self) -> Any:
        with self._lock:
            if self._core is None:
                self._core = self._connect()
            return self._core

    def _connect(self) -> Any:
        client = optional_module("kubernetes.client", extra="kubernetes", purpose="KubernetesProvider")
        config = optional_module("kubernetes.config", extra="kubernetes", purpose="KubernetesProvider")
        try:
            made = config.new_client_from_config(config_file=self._config_file, context=self._context)
        except (config.ConfigException, OSError) as error:
            settings = client.Configuration()
            if self._config_file is None and self._context is None:
                with suppress(config.ConfigException):
                    config.load_incluster_config(client_configuration=settings)
                    return client.CoreV1Api(client.ApiClient(settings))
            raise ExecutionProviderException(
                f"no way to a Kubernetes cluster: {error}; give config_file, or write ~/.kube/config so that "
                "`kubectl get pods` works"
            ) from error
        return client.CoreV1Api(made)


class _Refused(ExecutionProviderException):
    """The server refused a call that it understood; ``code`` is its HTTP code."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def _words(error: Any) -> str:
    """Return the server's own message of an error, with its HTTP code."""
    try:
        said = text(json.loads(error.body), "message")
    except (TypeError, ValueError, AttributeError):
        said = ""
    return f"{said or error.reason} (HTTP {error.status})"
