"""Memoizers, and keys of values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flow.compat.parsl.adapters.basic_memoizer import BasicMemoizer as BasicMemoizer, Memoizer as Memoizer
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.memo.key import memo_key
from flow_core.memo.registry import id_for_memo as flow_id_for_memo


class CheckpointCommand:
    """What a checkpoint is to have of a task: its result or its exception."""

    def __init__(
        self, task_record: Any, *, result: object | None = None, exception: BaseException | None = None
    ) -> None:
        self.task_record, self.result, self.exception = task_record, result, exception


def _value(obj: object, output_ref: bool) -> None:
    """Stand for the function of the call whose key is that of a value."""


class _IdForMemo:
    """Bytes that stand for a value in keys. What is registered here counts in Flow's keys."""

    register = staticmethod(flow_id_for_memo.register)
    dispatch = staticmethod(flow_id_for_memo.dispatch)

    def __call__(self, obj: object, output_ref: bool = False) -> bytes:
        """Return the bytes of a value. Raises Unhashable."""
        return memo_key(AppIdentity("id_for_memo", _value), Call(_value, (obj, output_ref), {})).digest


id_for_memo = _IdForMemo()
id_for_memo_dict = id_for_memo_list = id_for_memo_tuple = id_for_memo_pickle = id_for_memo_function = id_for_memo


def make_hash(task: Mapping[str, Any]) -> str:
    """Return a digest of a task's function, arguments and keywords, without those that its app ignores."""
    ignored = set(task.get("ignore_for_cache") or ())
    kwargs = {name: value for name, value in task["kwargs"].items() if name not in ignored}
    parts = [
        task["func_name"].encode(),
        id_for_memo(task["func"]),
        id_for_memo(list(task["args"])),
        id_for_memo(kwargs),
    ]
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()
