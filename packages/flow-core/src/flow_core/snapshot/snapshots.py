"""Snapshots of the functions of a run's apps, as these are at their calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from flow_core.apps.definition import AppKind
from flow_core.errors import SerializationError
from flow_core.guard import called, one_line, pass_signal
from flow_core.memo.digest import CannotDigest
from flow_core.memo.identity import identify
from flow_core.remote.callables import report_packing
from flow_core.remote.classes import report_versions
from flow_core.remote.functions import digest_of, pack_function
from flow_core.snapshot.arguments import ArgumentCode
from flow_core.snapshot.finder import FunctionLooks
from flow_core.snapshot.live import LiveNames
from flow_core.snapshot.versions import version_of

if TYPE_CHECKING:
    from flow_core.apps.definition import AppDefinition
    from flow_core.interfaces.snapshot import Identity

ONCE, WHOLE = "once", "whole"
_KEPT = 4096  # apps; only a script that makes apps without end has more, and it must not fill memory
_ATTEMPTS = 3  # what changes all the time would keep a call for ever; the last look is taken, and nothing remembered
# When this is imported, that is in the process of a script and in no worker.
report_versions(version_of)
report_packing(ArgumentCode())


class FunctionSnapshot:
    """A function as it was; see ``flow_core.interfaces.snapshot.Snapshot``.

    Attributes:
        digest: Name of ``blob``. Asking for it raises as ``blob``.
        live: Its names, for calls that run in this process; None where there are none to watch.
        looks: What to look at to know whether it is so still.
        travels: Whether it was packed.
        torn: Whether something changed all the time while the picture was taken.
        stands: Tells whether calls now may share it.
    """

    __slots__ = ("_blob", "_function", "_identity", "digest", "live", "looks", "stands", "torn", "travels")
    digest: bytes

    def __init__(
        self,
        function: Callable[..., object],
        travels: bool,
        counts: bool,
        whole: bool,
        live: LiveNames | None = None,
    ) -> None:
        """Look at a function now.

        Args:
            function: The function.
            travels: Whether it may go to another process.
            counts: Whether it is part of a key.
            whole: Whether all of large values is looked at.
            live: Its names as they are now, for calls that run in this process.
        """
        self._function = function
        self.live = live
        self.travels = travels
        self.torn = False
        # First: what changes while the function is packed below is seen by a look after it.
        self.looks = FunctionLooks(function, whole)
        self.stands = self.looks.unchanged
        self._identity = _identified(function) if counts else None
        # An error is kept, too: each call that shares the snapshot fails with it, and packing is not tried again.
        self._blob = _packed(function, self.looks) if travels else None
        if isinstance(self._blob, bytes):
            self.digest = digest_of(self._blob)  # an attribute, since each call asks for it

    def __getattr__(self, name: str) -> bytes:
        """Return the digest where it was not made at once, or cannot be."""
        if name != "digest":
            raise AttributeError(name)
        return digest_of(self.blob)

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

    def begins(self, call: object) -> Callable[..., object]:
        """Return the function to run for a call that begins in this process."""
        return self._function if self.live is None else self.live.begins(call)

    def changes(self) -> tuple[str, ...]:
        """Return the names of the parts of its identity that are not as they were."""
        if self.torn:
            return ("what it names, while the call was taken",)
        # Cheap, and so as a rule all: to find which part has changed the function is looked at anew.
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


def _packed(function: Callable[..., object], looks: FunctionLooks) -> bytes | SerializationError:
    from flow_core.snapshot.travel import packed  # with cloudpickle: runs on threads alone need none of it

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
        latest_live: The same, of calls that stay in this process and are not cached.
        stays: Whether calls of any app may stay in this process.
    """

    def __init__(
        self,
        tell: Callable[[AppDefinition, object, tuple[str, ...], tuple[str, ...]], object] | None = None,
        report_running: Callable[[AppDefinition, object, tuple[str, ...]], object] | None = None,
    ) -> None:
        """Begin without snapshots: each is taken at the first call of its app.

        Args:
            tell: Called when a call begins that stays in this process while names are bound to something else than they
                were at the call; with the app, the call, the names that it sees as they are now, and those that it
                sees as they were.
            report_running: Called with an app, the snapshot that calls had until now, and the names that are bound anew
                since, the first time that this is so.
        """
        self.latest: dict[AppDefinition, FunctionSnapshot] = {}
        self.latest_live: dict[AppDefinition, LiveNames | None] = {}
        self.stays = True
        self._tell = tell
        self._report_running = report_running

    def live(self, app: AppDefinition) -> LiveNames | None:
        """Return the names that an app's function uses, as they are bound now; None where there are none to watch."""
        last = self.latest_live.get(app)
        if last is None:
            if app in self.latest_live or self._tell is None:
                return None
            made = LiveNames(app.func, partial(self._tell, app))
        elif last.stands():
            return last
        else:
            made = last.renewed()
            self._report_change(app, last, last)
        if len(self.latest_live) >= _KEPT:
            self.latest_live.clear()
        self.latest_live[app] = found = made if made.watches and app.snapshot != ONCE else None
        return found

    def take(self, app: AppDefinition, travels: bool, counts: bool) -> FunctionSnapshot:
        """Return what an app's function is now.

        Args:
            app: The app.
            travels: Whether the call may go to another process: then the function is packed now.
            counts: Whether the call is cached: then its identity is found now, and all of large values looked at.
        """
        last = self.latest.get(app)
        # Nearly all calls end here: one look and no lock.
        if last is not None and last.stands() and (last.travels or not travels):
            return last
        return self._taken(app, travels, counts)

    def _names(self, app: AppDefinition) -> LiveNames | None:
        """Return the names of an app's function that may travel, for a call that stays here all the same."""
        if self._tell is None or app.snapshot == ONCE or not (self.stays or app.kind is AppKind.JOIN):
            return None
        last = self.latest.get(app)
        if last is not None and last.live is not None:
            self._report_change(app, last, last.live)
        made = LiveNames(app.func, partial(self._tell, app), again=last is not None)
        return made if made.watches else None

    def _report_change(self, app: AppDefinition, last: object, live: LiveNames) -> None:
        names = live.changed()
        if names and self._report_running is not None:
            self._report_running(app, last, names)

    def _taken(self, app: AppDefinition, travels: bool, counts: bool) -> FunctionSnapshot:
        # A key must not miss a change anywhere, so samples do not do there.
        whole = counts or app.snapshot == WHOLE
        for _ in range(_ATTEMPTS):
            snapshot = FunctionSnapshot(app.func, travels, counts, whole, self._names(app))
            # Something may have changed between two parts of the picture; then it is taken again.
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
