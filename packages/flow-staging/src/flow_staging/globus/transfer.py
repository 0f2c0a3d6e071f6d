"""Globus staging: files moved between other endpoints and the executor's endpoint."""

from __future__ import annotations

import os
import posixpath
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from flow_core.errors import ConfigurationError
from flow_core.files import File, Glob
from flow_core.interfaces.staging import Digests, Direction, Progress, Staging, StagingFuture, Transfer
from flow_core.without_effect import warn_of
from flow_staging.globus.batch import Batch, Item, TransferApi, temporary_name
from flow_staging.globus.login import GlobusLogin, TokenStore, sdk_module
from flow_staging.globus.poller import Poller
from flow_staging.transfer import sets
from flow_staging.transfer.expression import call_of
from flow_staging.transfer.failures import Final, PermanentTransferError, staging_error
from flow_staging.transfer.retry import LeastSpeed


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
        least_speed: Bytes a second below which a transfer fails, measured since its first bytes while it is active; 0
            for any speed, as by default: Globus checks large files for long without moving any.
        least_speed_window_s: The time over which that is measured, in seconds; it is looked at as ``poll_s`` says.
        client: Gives the ``globus_sdk.TransferClient`` to use, for those who log in by other means.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """

    moves = ("file", "directory", "pattern")

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
        least_speed: float = 0.0,
        least_speed_window_s: float = 300.0,
        client: Callable[[], TransferApi] | None = None,
    ) -> None:
        self._endpoint = _uuid(endpoint_uuid, "endpoint_uuid")
        self._endpoint_path = _absolute(endpoint_path, "endpoint_path")
        self._local_path = _absolute(local_path, "local_path")
        self.files_home = None if _is_here_below(self._local_path) else self._local_path
        if timeout_s <= 0 or not 0 < poll_s[0] <= poll_s[1]:
            raise ConfigurationError(f"GlobusStaging(timeout_s={timeout_s!r}, poll_s={poll_s!r}): give times above 0")
        self._timeout_s = timeout_s
        self._rename = rename
        self._speed = LeastSpeed("GlobusStaging", least_speed, least_speed_window_s)
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
            least_speed=least_speed,
            least_speed_window_s=least_speed_window_s,
            client=client,
        )
        if client is not None:
            given = {"client_id": client_id, "token_file": token_file}
            names = [name for name, value in given.items() if value is not None]
            warn_of("GlobusStaging", (f"{name} has no effect with client=: that logs in" for name in names))
        self._login = GlobusLogin(client_id, TokenStore(Path(token_file)) if token_file else None)
        self._poller = Poller(self._connect if client is None else client, *poll_s)

    def can_stage_in(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method fetches."""
        return file.scheme == "globus"

    def can_stage_out(self, file: File) -> bool:
        """Return whether the scheme of the URL is one that this method sends to."""
        return file.scheme == "globus"

    def wrong_with(self, file: File, direction: Direction) -> str:
        """Return what is wrong with the name of a file, empty if nothing is; asks no server."""
        try:
            _uuid_of(file)
            _path_of(file)
        except Final as error:
            return str(error)
        return ""

    def stage(self, transfers: Sequence[Transfer]) -> Future[None] | Future[Digests]:
        """Start the transfers; does not block."""
        groups: dict[tuple[str, str], list[Item]] = {}
        for transfer in transfers:
            try:
                for each in sets.of_this_side(transfer) if transfer.file.kind == "pattern" else [transfer]:
                    source, destination, item = self._item(each)
                    groups.setdefault((source, destination), []).append(item)
            except PermanentTransferError as error:
                failed: Future[None] = Future()
                failed.set_exception(staging_error(transfer, error))
                return failed
        batches = [Batch(*ends, items, self._timeout_s, self._speed) for ends, items in groups.items()]
        whole = _Whole(self._poller, batches, transfers)
        for batch in batches:
            self._poller.add(batch)
        return whole

    def close(self) -> None:
        """Cancel what is under way; returns within about 5 s."""
        self._poller.close()

    def __repr__(self) -> str:
        return self._call

    def _item(self, transfer: Transfer) -> tuple[str, str, Item]:
        """Return source endpoint, destination endpoint and the file between them; raises PermanentTransferError."""
        other = _uuid_of(transfer.file)
        there = _path_of(transfer.file)
        local = os.path.abspath(transfer.local_path)
        here = self._on_endpoint(local)
        if transfer.direction is Direction.OUT:
            if transfer.file.kind == "directory" and not os.path.isdir(local):
                raise PermanentTransferError("the app did not make this directory")
            beside_it = self._rename and transfer.file.kind == "file"  # else what is there already would be in the way
            temporary = temporary_name(there) if beside_it else there
            return self._endpoint, other, Item(transfer, here, there, temporary)
        temporary = temporary_name(here) if self._rename else here
        # Where the submit side sees the file system it renames itself, without a request.
        beside = Path(local).with_name(posixpath.basename(temporary))
        return other, self._endpoint, Item(transfer, there, here, temporary, Path(local), beside)

    def _on_endpoint(self, local: str) -> str:
        try:
            relative = PurePosixPath(local).relative_to(self._local_path)
        except ValueError:
            raise PermanentTransferError(
                f"{local} is not below local_path={self._local_path!r} of the executor's endpoint; "
                "set the executor's working_dir to a directory below it"
            ) from None
        return str(PurePosixPath(self._endpoint_path) / relative)

    def _connect(self) -> TransferApi:
        sdk = sdk_module()
        # Asked only at a terminal: a batch job would wait for ever.
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


def _is_here_below(directory: str) -> bool:
    """Return whether the current directory, and with it what a run makes in it, lies below a directory."""
    try:
        return Path.cwd().is_relative_to(directory)
    except OSError:  # it was removed
        return False


def _uuid_of(file: File) -> str:
    try:
        return str(uuid.UUID(file.netloc))
    except ValueError:
        raise Final("a globus URL has the form globus://ENDPOINT-UUID/path") from None


def _path_of(file: File) -> str:
    """Return the path on the endpoint, that of the directory before a pattern; raises Final."""
    try:
        whole = file.path if not isinstance(file, Glob) else file.path[: -len(file.pattern)]
        path = unquote(whole, errors="strict")
    except UnicodeDecodeError:
        raise Final("the path of a globus URL is not UTF-8: Globus takes no other names") from None
    path = path.rstrip("/") or "/" if file.kind != "file" else path
    if file.kind != "pattern" and (not path.strip("/") or path.endswith("/")):
        raise Final("a globus URL has the form globus://ENDPOINT-UUID/path of a file")
    if ".." in path.split("/"):
        raise Final("'..' is not allowed in the path of a globus URL")
    return path


class _Whole(StagingFuture):
    """Ends when all batches of a task have, with the first error."""

    def __init__(self, poller: Poller, batches: Sequence[Batch], transfers: Sequence[Transfer]) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self._poller = poller
        self._batches = batches
        self._transfers = transfers
        self._ending = threading.Lock()
        self._left = len(batches)
        self._error: BaseException | None = None
        for batch in batches:
            batch.future.add_done_callback(self._ended)
        if not batches:
            self.set_result(())

    def cancel(self) -> bool:
        """Have the poller cancel the batches that have not ended; False, since the future ends later by itself."""
        self._poller.cancel([batch for batch in self._batches if not batch.future.done()])
        return False

    def progress(self) -> Sequence[Progress | None]:
        """Return the progress of files that are alone in their batch: Globus counts the bytes of a whole batch."""
        alone = {batch.transfers[0]: batch.progress for batch in self._batches if len(batch.transfers) == 1}
        return [alone.get(transfer) for transfer in self._transfers]

    def _ended(self, future: Future[None]) -> None:
        error = future.exception()
        with self._ending:
            self._left -= 1
            self._error = self._error or error
            last, error = self._left == 0, self._error
        if last and error is not None:
            self.set_exception(error)
        elif last:
            self.set_result(())
