"""The launch of managers on nodes of one start of an executor: what goes with each job, and who serves the rest."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from flow_core.remote.node_cache import cache_directory, private
from flow_executors.errors import ExecutorError
from flow_executors.launching.file_server import FileServer
from flow_executors.launching.launch_line import PythonSearch, candidates, delivered, search_code
from flow_executors.launching.node_bundle import Archive, Platform, runtime_archive, serves, this_platform
from flow_executors.launching.node_python import PYTHON, NodePython
from flow_executors.launching.packed_environment import is_lock, locked_packages
from flow_executors.wire.auth import KeyPair


class NodeLaunch:
    """Makes the commands of managers runnable on nodes. Any thread; archives are made by the first who needs them.

    Args:
        wanted: What the user wants.
        addresses: Where nodes find this machine.
        listen: Opens the socket of the server of archives; raises ExecutorError.
        fallback: Directory for archives where the user's cache cannot be written.
        logger: The executor's.
    """

    def __init__(
        self,
        wanted: NodePython,
        addresses: tuple[str, ...],
        listen: Callable[[], socket.socket],
        fallback: Path,
        logger: logging.Logger,
    ) -> None:
        self._wanted = wanted
        self._addresses = addresses
        self._listen = listen
        self._fallback = fallback
        self._logger = logger
        self._lock = threading.Lock()
        self._search: PythonSearch | None = None
        self._server: FileServer | None = None
        self._pairs: dict[str, KeyPair] = {}

    def takes(self, command: str) -> bool:
        """Tell whether a command of a manager needs a Python that is looked for; else it is to be left as it is."""
        return PYTHON in command

    def prepared(self, block: str, pair: KeyPair, command: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Return the command of a manager with the search for its Python before it, and the files to go with the job.

        May take seconds at the first time.

        Raises:
            ExecutorError: the environment that the user gave cannot be used.
        """
        with self._lock:
            search = self._search = self._search or self._made()
            if self._server is not None:
                self._server.admit(pair)
                self._pairs[block] = pair
        return f"{search_code(search)}\n{command}", tuple(delivered(search))

    def revoke(self, block: str) -> None:
        """Serve the nodes of a block no more."""
        with self._lock:
            pair = self._pairs.pop(block, None)
            if pair is not None and self._server is not None:
                self._server.revoke(pair.public)

    def close(self) -> None:
        """Close the server. Idempotent."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _made(self) -> PythonSearch:
        wanted = self._wanted
        runtime = self._runtime() if wanted.bootstrap else None
        environment = packages = None
        if wanted.environment is not None:
            if is_lock(wanted.environment):
                packages = locked_packages(Path(wanted.environment), self._cache(), this_platform())
            else:
                environment = _packed(wanted.environment)
        port = self._served() if runtime or environment or packages else 0
        return PythonSearch(
            python=this_platform().python,
            candidates=candidates(wanted.python, wanted.drivers),
            runtime=runtime,
            always=wanted.bootstrap is True,
            named=wanted.python is not None and environment is None,
            refused=not wanted.bootstrap,
            environment=environment,
            packages=packages,
            addresses=self._addresses,
            port=port,
            in_image=wanted.in_image,
            drivers=wanted.drivers if wanted.python is None else "",
            owners=owners_of(wanted.drivers) if wanted.drivers else (),
        )

    def _runtime(self) -> Archive | None:
        try:
            return runtime_archive(self._cache())
        except (ExecutorError, OSError) as error:
            if self._wanted.bootstrap is True:
                raise ExecutorError(f"Flow cannot be sent to nodes: {error}") from error
            self._logger.warning("Flow cannot be sent to nodes that lack it, or have another: %s", error)
            return None

    def _served(self) -> int:
        try:
            self._server = FileServer(self._listen(), self._archive_for, self._logger)
        except ExecutorError as error:
            self._logger.info("archives go to nodes with their jobs only: %s", error)
            return 0
        return self._server.port

    def _archive_for(self, name: str, node: Platform) -> Archive:
        """Return an archive for a node. ExecutorError: there is none."""
        search = self._search
        if search is None:
            raise ExecutorError("no archive was made")
        kind = name.partition("-")[0]
        known = {"runtime": search.runtime, "environment": search.environment, "packages": search.packages}.get(kind)
        if known is None:
            raise ExecutorError(f"there is no archive {name}")
        if known.needs is None or serves(known.needs, node):
            return known
        if kind == "packages":
            return locked_packages(Path(str(self._wanted.environment)), self._cache(), node)
        self._logger.info("Flow is made ready for nodes of another kind: %s", node)
        return runtime_archive(self._cache(), node)

    def _cache(self) -> Path:
        try:
            return Path(cache_directory("archives"))
        except OSError:
            try:
                return Path(private(str(self._fallback / "archives")))
            except OSError as error:
                raise ExecutorError(f"no cache of this machine can be written: {error}") from error


def owners_of(path: str) -> tuple[int, ...]:
    """Return the numbers of users who have made a file and the directories that lead to it."""
    found = set()
    for one in (path, os.path.realpath(os.path.dirname(path)), os.path.realpath(path)):
        for place in (Path(one), *Path(one).parents):
            with contextlib.suppress(OSError):
                found.add(place.lstat().st_uid)
    return tuple(sorted(found))


def _packed(path: str) -> Archive:
    whole = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
    except OSError as error:
        raise ExecutorError(f"the packed environment {path} cannot be read: {error.strerror}") from error
    return Archive(Path(path).absolute(), whole.hexdigest(), None)
