"""From a handout to a packet: small tasks of the default class go as they are, all others as letters."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable

from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_executors.manager.blobs import memory_file
from flow_executors.manager.pinning import accelerator_environment
from flow_executors.manager.records import Handout, Record
from flow_executors.worker.frames import LETTER_ROOM, PACKET, pack_letter, pack_letter_to_file

_NO_FILE = -1


class Letters:
    """The letters that are out, with their files. One thread."""

    def __init__(self) -> None:
        self._specs: dict[int, TaskSpec] = {}
        self._out: dict[int, tuple[Record, int]] = {}  # key -> record and file

    def learn(self, class_id: int, spec: TaskSpec) -> None:
        """Note what tasks of a class are to be told."""
        self._specs[class_id] = spec

    def packet(self, handout: Handout) -> Record:
        """Return what to write into the pipe.

        Raises:
            OSError: there is no descriptor or memory left for a file.
        """
        record = handout.record
        if not handout.class_id and len(record) <= PACKET:
            return record
        variables = tuple(accelerator_environment(",".join(handout.devices)).items()) if handout.devices else ()
        extra = pickle.dumps((self._specs.get(handout.class_id, DEFAULT_SPEC), variables), 5)
        if len(extra) + len(record) <= LETTER_ROOM:
            self._out[handout.key] = record, _NO_FILE
            return pack_letter(handout.key, handout.class_id, extra, record)
        file = memory_file("flow-task", b"".join((extra, record)))
        self._out[handout.key] = record, file
        return pack_letter_to_file(handout.key, handout.class_id, len(extra), file)

    def opened(self, packets: Iterable[tuple[int, bytes]]) -> list[tuple[int, Record]]:
        """Turn packets that were read back into records again."""
        return [(key, self._close(key, packet)) for key, packet in packets]

    def done(self, keys: Iterable[int]) -> None:
        """Forget letters whose tasks have ended."""
        if self._out:
            for key in keys:
                self._close(key, b"")

    def _close(self, key: int, packet: bytes) -> Record:
        record, file = self._out.pop(key, (packet, _NO_FILE))
        if file != _NO_FILE:
            os.close(file)
        return record
