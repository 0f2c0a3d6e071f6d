"""A worker's way to the files of the script's machine: the manager of its node, by a socket of this machine."""

from __future__ import annotations

import json
import os
import socket
import struct

from flow_core.errors import MissingInputs, StagingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("3i")
_seen: set[str] = set()
"""Sockets of managers whose node sees the script's disk itself, as they said: asked once a process."""


class NodeFiles:
    """The files of one try. One thread, that of the task."""

    def __init__(self, name: str, key: int, node: str) -> None:
        self._name = name
        self._key = key
        self._node = node
        self._connection: socket.socket | None = None
        self.root = ""

    def begin(self) -> NodeFiles | None:
        """Ask for a directory of the try; None where the node sees the script's disk. Raises StagingError."""
        if self._name in _seen:
            return None
        self._connection = made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(f"\0{self._name}")
            if _CREDENTIALS.unpack(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] != os.geteuid():
                raise PermissionError("it belongs to another user")
        except OSError as error:
            self.close()
            raise StagingError(f"the manager of {self._node} does not bring files: {error}") from error
        answer = self._ask({"do": "begin", "key": self._key})
        if not answer["apart"]:
            _seen.add(self._name)
            self.close()
            return None
        self.root = str(answer["root"])
        return self

    def bring(self, places: Sequence[str], own: Sequence[int]) -> None:
        """Bring all that the try is given. Raises MissingInputs, StagingError."""
        self._ask({"do": "bring", "places": list(places), "own": list(own)})

    def send(self, files: Sequence[tuple[int, str, str]]) -> None:
        """Send files, each as the number of what was declared, its member of that, its path. Raises StagingError."""
        if files:
            self._ask({"do": "send", "files": list(files)})

    def close(self) -> None:
        """Let go of the directory, which the manager removes; what still moves is stopped. Never raises."""
        made, self._connection = self._connection, None
        if made is not None:
            made.close()

    def _ask(self, request: dict[str, object]) -> dict[str, object]:
        connection = self._connection
        if connection is None:
            raise StagingError("the files of this try were let go of")
        text = json.dumps(request).encode()
        try:
            connection.sendall(_LENGTH.pack(len(text)) + text)
            (size,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
            answer: dict[str, object] = json.loads(_read(connection, size))
        except OSError as error:
            raise StagingError(f"the manager of {self._node} ended while it moved files: {error}") from error
        if missing := answer.get("missing"):
            assert isinstance(missing, list)
            listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise MissingInputs(f"the task was not started on {self._node}, since it lacks inputs: {listed}: "
                                f"{answer['error']}", missing)  # fmt: skip
        if answer.get("error"):
            side = {"node": f" (on node {self._node})", "way": f" (on the way to or from node {self._node})"}
            raise StagingError(
                f"{answer['error']}{side.get(str(answer.get('side')), '')}", str(answer.get("url") or "")
            )
        return answer


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError("its connection ended")
        data += part
    return bytes(data)
