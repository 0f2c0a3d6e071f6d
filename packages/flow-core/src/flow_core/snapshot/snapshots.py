"""The functions of a run's apps as they are at their calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flow_core.errors import SerializationError
from flow_core.guard import called, one_line, pass_signal
from flow_core.memo.digest import CannotDigest
from flow_core.memo.identity import identify
from flow_core.remote.callables import tell_packing
from flow_core.remote.classes import tell_versions
from flow_core.remote.functions import digest_of, pack_function
from flow_core.snapshot.arguments import packed_argument
from flow_core.snapshot.looks import Looks
from flow_core.snapshot.travel import packed
from flow_core.snapshot.versions import version_of

if TYPE_CHECKING:
    from flow_core.apps.definition import AppDefinition
    from flow_core.interfaces.snapshot import Identity

ONCE, WHOLE = "once", "whole"
_KEPT = 4096
_ATTEMPTS = 3
tell_versions(version_of)
tell_packing(packed_argument)


class FunctionSnapshot:
    """A function as it was; see ``flow_core.interfaces.snapshot.Snapshot``.

    Attributes:
        looks: What to look at to know whether it is so still.
        travels: Whether it was packed.
        torn: Whether something changed all the time while the picture was taken.
        stands: Tells whether calls now may share it.
    """

    __slots__ = ("_blob", "_digest", "_function", "_identity", "looks", "stands", "torn", "travels")

    def __init__(self, function: Callable[..., object], travels: bool, counts: bool, whole: bool) -> None:
        """Look at a function now.

        Args:
            function: The function.
            travels: Whether it may go to another process.
            counts: Whether it is part of a key.
            whole: Whether all of large values is looked at.
        """
        self._function = function
        self.travels = travels
        self.torn = False
        self.looks = Looks(function, whole)
        self.stands = self.looks.unchanged
        self._identity = _identified(function) if counts else None
        self._blob = _packed(function, self.looks) if travels else None
        self._digest = digest_of(self._blob) if isinstance(self._blob, bytes) else b""

    @property
    def digest(self) -> bytes:
        """Name of ``blob``. Raises as ``blob``."""
        return self._digest or digest_of(self.blob)

    @property
    def blob(self) -> bytes:
        """The function as it travels. Raises SerializationError."""
        blob = self._blob
        if blob is None:
            return pack_function(self._function)
        if not isinstance(blob, bytes):
            raise blob.with_traceback(None)
        return blob

    def identity(self) -> Identity:
        """Return what the function was. Raises CannotDigest."""
        identity = self._identity
        if identity is None:
            return identify(self._function)
        if isinstance(identity, CannotDigest):
            raise identity.with_traceback(None)
        return identity

    def changes(self) -> tuple[str, ...]:
        """Return the names of the parts of its identity that are not as they were."""
        if self.torn:
            return ("what it names, while the call was taken",)
        if self.looks.unchanged():
            return ()
        now, then = _identified(self._function), self._identity
        if then is None or isinstance(then, CannotDigest) or isinstance(now, CannotDigest):
            return ("what it names",)
        before, after = dict(_named(then)), dict(_named(now))
        return tuple(name for name in {**before, **after} if before.get(name) != after.get(name))


def _always() -> bool:
    return True


def _named(identity: Identity) -> list[tuple[str, object]]:
    parts: list[tuple[str, object]] = [(part.name, part.encoded) for part in identity.parts]
    defaults = [(f"default of {name!r}", one if isinstance(one, bytes) else b"") for name, one in identity.defaults]
    return [*parts, *defaults]


def _identified(function: Callable[..., object]) -> Identity | CannotDigest:
    try:
        return identify(function)
    except CannotDigest as error:
        return error
    except BaseException as error:  # of an object that is looked at
        pass_signal(error)
        return CannotDigest(one_line(error))


def _packed(function: Callable[..., object], looks: Looks) -> bytes | SerializationError:
    try:
        return packed(function, looks)
    except SerializationError as error:
        return error
    except BaseException as error:  # of an object that is looked at
        pass_signal(error)
        return SerializationError(f"the function {called(function)} cannot be sent to workers: {one_line(error)}")


class Snapshots:
    """Takes snapshots of the functions of one run; as long as nothing changes a function has one. Any thread.

    Attributes:
        latest: The last one of each app.
    """

    def __init__(self) -> None:
        self.latest: dict[AppDefinition, FunctionSnapshot] = {}

    def take(self, app: AppDefinition, travels: bool, counts: bool) -> FunctionSnapshot:
        """Return what an app's function is now.

        Args:
            app: The app.
            travels: Whether the call may go to another process: then the function is packed now.
            counts: Whether the call is cached: then its identity is found now, and all of large values looked at.
        """
        last = self.latest.get(app)
        if last is not None and last.stands() and (last.travels or not travels):
            return last
        return self._taken(app, travels, counts)

    def _taken(self, app: AppDefinition, travels: bool, counts: bool) -> FunctionSnapshot:
        whole = counts or app.snapshot == WHOLE
        for _ in range(_ATTEMPTS):
            snapshot = FunctionSnapshot(app.func, travels, counts, whole)
            if snapshot.looks.unchanged():
                break
        else:
            snapshot.torn = True
            return snapshot
        if app.snapshot == ONCE:
            snapshot.stands = _always
        if len(self.latest) >= _KEPT:
            self.latest.clear()
        self.latest[app] = snapshot
        return snapshot
