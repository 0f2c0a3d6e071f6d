"""What mpiexec calls in place of ssh, ``flow-on [options] HOST COMMAND...``: run a command on another node of the task.

On the task's own node it becomes the command. For others it asks the manager of this node, by a socket in the task's
directory, which asks the other's. Exit status as that of ssh: the command's, or 255 with a line that says why not.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from flow_executors.mpi.environment import DIRECTORY, SOCKET_FILE
from flow_executors.mpi.streams import Wanted, pack_frame, pack_wanted, take_frames
from flow_executors.wire.ranks import (
    PIECE,
    WINDOW,
    RemoteExit,
    RemoteStep,
    pack_taken_bytes,
    unpack_exit_status,
    unpack_taken_bytes,
)

_FAILED = 255  # as ssh
# Options of ssh that have a value, of those that launchers give.
_VALUED = ("-l", "-p", "-o", "-i", "-F")


def main() -> None:
    """Run the command line; ends with the process."""
    try:
        host, words = _parsed(sys.argv[1:])
    except IndexError:
        _say("usage: flow-on [options] HOST COMMAND...")
        os._exit(_FAILED)
    # As ssh does it: one text, which a shell of the other side reads.
    command = " ".join(words)
    if host in (os.uname().nodename, "localhost"):
        os.execv("/bin/sh", ["sh", "-c", command])
    try:
        os._exit(_relayed(Wanted(host, command, os.getcwd(), dict(os.environ))))
    except OSError as error:
        _say(f"the manager of {os.uname().nodename} does not answer: {error}")
        os._exit(_FAILED)


def _parsed(words: list[str]) -> tuple[str, list[str]]:
    at = 0
    while words[at].startswith("-"):
        at += 2 if words[at] in _VALUED else 1
    return words[at], words[at + 1 :]


def _say(text: str) -> None:
    sys.stderr.write(f"flow-on: {text}\n")
    sys.stderr.flush()


def _relayed(wanted: Wanted) -> int:
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        raise OSError(f"{DIRECTORY} is not set: this is for commands of a task of ranks")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(60)
    # By way of a descriptor: paths of sockets have 107 bytes at most.
    folder = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    connection.connect(f"/proc/self/fd/{folder}/{SOCKET_FILE}")
    os.close(folder)
    connection.sendall(pack_frame(RemoteStep.START, pack_wanted(wanted)))
    connection.settimeout(None)
    credit, buffer = WINDOW, bytearray()
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    poller.register(0, select.POLLIN)
    open_input = True
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == 0:
                data = os.read(0, min(PIECE, credit))
                credit -= len(data)
                connection.sendall(pack_frame(RemoteStep.STDIN, data))
                open_input = bool(data)
                if not open_input or credit <= 0:
                    poller.unregister(0)
                continue
            data = connection.recv(PIECE)
            if not data:
                raise OSError("its connection ended: the task is being ended")
            buffer += data
            for step, body in take_frames(buffer):
                if step is RemoteStep.EXIT:
                    return _ended(unpack_exit_status(body))
                if step is RemoteStep.CREDIT:
                    if open_input and credit <= 0:
                        poller.register(0, select.POLLIN)
                    credit += unpack_taken_bytes(body)[1]
                elif body:
                    _write(1 if step is RemoteStep.STDOUT else 2, body)
                    connection.sendall(pack_frame(RemoteStep.CREDIT, pack_taken_bytes(step, len(body))))


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _ended(ended: RemoteExit) -> int:
    if ended.error:
        _say(ended.error)
    return ended.code if ended.code >= 0 else 128 - ended.code
