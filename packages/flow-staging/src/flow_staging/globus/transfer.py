"""Files on Globus endpoints: brought to the executor's endpoint and from it."""

from __future__ import annotations

import os
import posixpath
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_staging.globus.batch import Batch, Item, TransferApi, temporary_name
from flow_staging.globus.login import Login, TokenStore, sdk_module
from flow_staging.globus.poller import Poller
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Refused, staging_error


class GlobusStaging(Staging):
    """Moves ``globus://ENDPOINT-UUID/path`` URLs between their endpoint and that of the executor.

    All files of one task and one other endpoint go in one transfer, checksums verified by Globus; one thread watches
    all transfers. Files are made under a temporary name and renamed when the transfer has succeeded.

    Args:
        endpoint_uuid: Endpoint (collection) of the executor's file system.
        endpoint_path: A directory as that endpoint names it ...
        local_path: ... and as the executor names the same directory. Files must lie below it.
        client_id: Client id of your registered native app; else $FLOW_GLOBUS_CLIENT_ID or the one of the last login.
        token_file: Where the login is kept; else $FLOW_GLOBUS_TOKENS or the user's configuration directory.
        timeout_s: Longest time for the files of one task.
        poll_s: First and longest pause between two looks at a transfer.
        rename: False for endpoints that cannot rename, such as object stores, where files appear whole anyway.
        client: Gives the ``globus_sdk.TransferClient`` to use, for those who log in by other means.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    def __init__(
        self,
        endpoint_uuid: str,
        endpoint_path: str = "/",
        local_path: str = "/",
        *,
        client_id: str | None = None,
        token_file: str | None = None,
        timeout_s: float = 86_400.0,
        poll_s: tuple[float, float] = (1.0, 30.0),
        rename: bool = True,
        client: Callable[[], TransferApi] | None = None,
    ) -> None:
        self._endpoint = _uuid(endpoint_uuid, "endpoint_uuid")
        self._endpoint_path = _absolute(endpoint_path, "endpoint_path")
        self._local_path = _absolute(local_path, "local_path")
        if timeout_s <= 0 or not 0 < poll_s[0] <= poll_s[1]:
            raise ConfigurationError(f"GlobusStaging(timeout_s={timeout_s!r}, poll_s={poll_s!r}): give times above 0")
        self._timeout_s = timeout_s
        self._rename = rename
        self._call = call_of(
            self,
            endpoint_uuid=self._endpoint,
            endpoint_path=self._endpoint_path,
            local_path=self._local_path,
            client_id=client_id,
            token_file=token_file,
            timeout_s=timeout_s,
            poll_s=poll_s,
            rename=rename,
            client=client,
        )
        self._login = Login(client_id, TokenStore(Path(token_file)) if token_file else None)
        self._poller = Poller(self._connect if client is None else client, *poll_s)

    def can_stage_in(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme == "globus"

    def can_stage_out(self, file: File) -> bool:
        """Tell by the scheme."""
        return file.scheme == "globus"

    def local_path(self, file: File, working_dir: str | None) -> Path | None:
        """Return a place below ``local_path``, where an executor has no working directory of its own."""
        if working_dir is not None:
            return None
        digest = blake2b(file.url.encode(), digest_size=6).hexdigest()
        return Path(self._local_path) / f"globus-{digest}" / (file.filename or "file")

    def stage(self, transfers: Sequence[Transfer]) -> Future[None]:
        """Start the transfers; does not block."""
        groups: dict[tuple[str, str], list[Item]] = {}
        for transfer in transfers:
            try:
                source, destination, item = self._item(transfer)
            except Refused as error:
                failed: Future[None] = Future()
                failed.set_exception(staging_error(transfer, error))
                return failed
            groups.setdefault((source, destination), []).append(item)
        batches = [Batch(*ends, items, self._timeout_s) for ends, items in groups.items()]
        whole = _all_of([batch.future for batch in batches])
        for batch in batches:
            self._poller.add(batch)
        return whole

    def close(self) -> None:
        """Cancel what is under way; returns within about 5 s."""
        self._poller.close()

    def __repr__(self) -> str:
        return self._call

    def _item(self, transfer: Transfer) -> tuple[str, str, Item]:
        """Return source endpoint, destination endpoint and the file between them; raises Refused."""
        other = _uuid_of(transfer.file)
        there = _path_of(transfer.file)
        local = os.path.abspath(transfer.local_path)
        here = self._on_endpoint(local)
        if transfer.direction is Direction.OUT:
            temporary = temporary_name(there) if self._rename else there
            return self._endpoint, other, Item(transfer, here, there, temporary)
        temporary = temporary_name(here) if self._rename else here
        beside = Path(local).with_name(posixpath.basename(temporary))
        return other, self._endpoint, Item(transfer, there, here, temporary, Path(local), beside)

    def _on_endpoint(self, local: str) -> str:
        try:
            relative = PurePosixPath(local).relative_to(self._local_path)
        except ValueError:
            raise Refused(
                f"{local} is not below local_path={self._local_path!r} of the executor's endpoint; "
                "set the executor's working_dir to a directory below it"
            ) from None
        return str(PurePosixPath(self._endpoint_path) / relative)

    def _connect(self) -> TransferApi:
        sdk = sdk_module()
        if not self._login.works() and sys.stdin is not None and sys.stdin.isatty():
            self._login.ask(input, print)
        client: TransferApi = sdk.TransferClient(authorizer=self._login.authorizer())
        return client


def _uuid(text: str, option: str) -> str:
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"GlobusStaging({option}={text!r}): give the UUID of an endpoint") from None


def _absolute(path: str, option: str) -> str:
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        raise ConfigurationError(f"GlobusStaging({option}={path!r}): give an absolute path without '..'")
    return posixpath.normpath(path)


def _uuid_of(file: File) -> str:
    try:
        return str(uuid.UUID(file.netloc))
    except ValueError:
        raise Refused("a globus URL has the form globus://ENDPOINT-UUID/path") from None


def _path_of(file: File) -> str:
    path = unquote(file.path)
    if not path.strip("/") or path.endswith("/"):
        raise Refused("a globus URL has the form globus://ENDPOINT-UUID/path of a file")
    if ".." in path.split("/"):
        raise Refused("'..' is not allowed in the path of a globus URL")
    return path


def _all_of(futures: Sequence[Future[None]]) -> Future[None]:
    """Return a future that ends when all have, with the first error."""
    whole: Future[None] = Future()
    whole.set_running_or_notify_cancel()
    lock = threading.Lock()
    left = [len(futures)]
    errors: list[BaseException] = []

    def ended(future: Future[None]) -> None:
        with lock:
            left[0] -= 1
            error = future.exception()
            if error is not None:
                errors.append(error)
            last = left[0] == 0
        if last and errors:
            whole.set_exception(errors[0])
        elif last:
            whole.set_result(None)

    for future in futures:
        future.add_done_callback(ended)
    if not futures:
        whole.set_result(None)
    return whole
