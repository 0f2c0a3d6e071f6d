"""``future[i]`` and ``future.attr``: futures of a part of a result, given at once."""

from __future__ import annotations

import builtins
from concurrent.futures import Future as StdFuture
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast, overload

from flow_core.futures.explained import explained, in_one_line, parent_why
from flow_core.futures.lean import CANCELLATION, Future, failure_of, settle, when_done
from flow_core.guard import pass_signal, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import SupportsIndex

    from flow_core.interfaces.waiting import Explanation

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
K = TypeVar("K")
V = TypeVar("V")


class Results(Protocol[R_co]):
    """Anything with a result of a type: any future. The type of futures that stand for an argument."""

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the result and return it."""
        ...


class Derivable(Future[R]):
    """A future of whose result parts can be had as futures: ``f[0]``, ``f['key']``, ``f.name``.

    Only public attributes: names that begin with an underscore, and those that futures themselves have, are never
    looked up on the result.
    """

    __slots__ = ()

    # An old-style sequence has __getitem__ and no __iter__: without these, `for x in future` would never end.
    __iter__: ClassVar[None] = None
    __contains__: ClassVar[None] = None

    @overload
    def __getitem__(self: Results[Mapping[K, V]], key: K) -> DerivedFuture[V]: ...
    @overload
    def __getitem__(self: Results[Sequence[V]], key: SupportsIndex) -> DerivedFuture[V]: ...
    @overload
    def __getitem__(self, key: builtins.object) -> DerivedFuture[Any]: ...
    def __getitem__(self, key: builtins.object) -> DerivedFuture[Any]:
        return DerivedFuture(self, key, is_attribute=False)

    def __getattr__(self, name: str) -> DerivedFuture[Any]:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return DerivedFuture(self, name, is_attribute=True)


class DerivedFuture(Derivable[R]):
    """The future of an item or attribute of another future's result; fails as that one does.

    A missing item or attribute is the exception that looking it up raises. Cancelling it does not cancel its parent.
    """

    __slots__ = ("_is_attribute", "_key", "_parent")

    def __init__(self, parent: StdFuture[Any], key: object, *, is_attribute: bool) -> None:
        super().__init__()
        self._parent: StdFuture[object] | None = cast("StdFuture[object]", parent)
        self._key = key
        self._is_attribute = is_attribute
        # On the thread that settles the parent, unlike callbacks of users: a part is done as soon as the whole is.
        when_done(parent, self._resolve)

    def _resolve(self, parent: StdFuture[Any]) -> None:
        me = cast("Future[object]", self)
        if parent.cancelled():
            self._parent = None
            settle([(me, None, CANCELLATION)])
            return
        error = failure_of(parent)
        if error is None:  # else a look at this failure is one at the parent's
            self._parent = None
        value: object = None
        if error is None:
            try:
                value = self._look_up(parent.result())
            except BaseException as failure:  # whatever the user's __getitem__ or __getattr__ raises
                pass_signal(failure)
                error = failure
        settle([(me, value, error)])

    def _look_up(self, whole: object) -> object:
        if self._is_attribute:
            return getattr(whole, str(self._key))
        return whole[self._key]  # type: ignore[index]  # whatever the user's result allows

    def why(self, timeout_s: float = 2.0) -> Explanation:
        """Say why the future that this is a part of is not done yet; see its ``why``."""
        return parent_why(self._parent, timeout_s, self._explained)

    def _explained(self) -> Explanation:
        state = "done" if self.done() else "pending"
        return explained(self, "a part of a result", state, None)

    def _looked_at(self) -> None:
        if isinstance(self._parent, Future):
            self._parent._looked_at()

    def _why_not(self, timeout: float | None) -> str:
        return in_one_line(self.why, timeout)

    def _about_to_wait(self) -> None:
        parent = self._parent
        if isinstance(parent, Future):
            parent._about_to_wait()

    def _describe(self) -> str:
        part = f".{self._key}" if self._is_attribute else f"[{shown(self._key)}]"
        return f"part={part} {super()._describe()}"
