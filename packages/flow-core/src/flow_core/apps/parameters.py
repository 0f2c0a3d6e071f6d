"""Parameters of apps: a function's own and Flow's special keywords, told apart in one call."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from flow_core.apps.definition import AppKind, CallOptions, StdStream
from flow_core.apps.special import checked_stream, checked_walltime, task_spec, with_ranks
from flow_core.errors import BadStdStreamFile, ConfigurationError
from flow_core.files import File
from flow_core.interfaces.call import TaskSpec

_SHARED: Final = ("inputs", "outputs", "stdout", "stderr")
_YIELDING: Final = ("walltime", "label", "resource_specification")
_INPUTS_ALONE: Final = frozenset(("inputs",))

_Args = tuple[Any, ...]
_Kwargs = dict[str, Any]


class Parameters:
    """The special keywords as one function sees them.

    ``inputs``, ``outputs``, ``stdout`` and ``stderr`` are shared: Flow looks at them, and the function gets them if it
    has such parameters; defaults count as if passed. ``walltime``, ``label`` and ``resource_specification`` are Flow's;
    where the function has parameters of these names it gets the values, too, and defaults count where neither the app
    nor its options say anything.

    Attributes:
        takes: The shared keywords that the function has parameters for (all, with ``**kwargs``).
        watched: The keywords of a call that Flow must look at.
        plain: Whether the function has no parameter of a shared name, so that a call without watched keywords needs
            no look at all.
        special: All keywords that a call may hold or lack, whatever the function takes.
        on_ranks: Whether the function runs on ranks: then its tasks have one where they state none.
    """

    def __init__(self, func: Callable[..., object], name: str, kind: AppKind) -> None:
        self._name = name
        self._kind = kind
        self.on_ranks = False
        declared = _declared(func)
        kinds = {parameter.kind for parameter in declared.values()}
        own = {name for name in (*_SHARED, *_YIELDING) if name in declared and not _starred(declared[name])}
        # Most functions: their calls need no look at keywords that nobody gave.
        self.plain = not own
        self.takes = frozenset(_SHARED if inspect.Parameter.VAR_KEYWORD in kinds else own.intersection(_SHARED))
        self.watched = frozenset((*_SHARED, *_YIELDING))
        self.special = frozenset((*_SHARED, *(name for name in _YIELDING if name not in own)))
        self._declared = {name: (_place(name, declared), declared[name].default) for name in _YIELDING if name in own}
        for keyword, (_, default) in self._declared.items():
            if default is not _EMPTY:
                self._checked(keyword, default)
        self._positions = _positions(declared)
        self._defaults = {
            name: declared[name].default for name in _SHARED if name in own and declared[name].default is not _EMPTY
        }

    def read(
        self,
        args: _Args,
        kwargs: _Kwargs,
        base: CallOptions,
        walltime: float | None,
        resources: dict[str, object],
    ) -> tuple[_Args, _Kwargs, CallOptions]:
        """Divide one call into what goes to the function and what is Flow's.

        ``inputs`` and ``outputs`` stay among the keywords (as new lists) even if the function does not take them:
        futures and files are looked for there.

        Raises:
            ConfigurationError: a special keyword has an impossible value.
            BadStdStreamFile: the same of a stream.
        """
        said = self._said(args, kwargs) if self._declared else kwargs
        args, kwargs = self._by_keyword(args, kwargs)
        # Most calls with keywords: futures as ``inputs``, and nothing else of Flow's.
        if (
            self._kind is not AppKind.BASH
            and not self._declared
            and self.watched.intersection(kwargs) == _INPUTS_ALONE
            and _no_files(base)
        ):
            self._inputs(kwargs)
            if not kwargs["inputs"] and "inputs" not in self.takes:
                del kwargs["inputs"]
            return args, kwargs, base
        spec, label = base.spec, base.label
        if self._declared:
            walltime, resources, label = self._with_defaults(said, walltime, resources, label)
            spec = self.spec(walltime, resources)
        if "walltime" in said:
            walltime = self._checked("walltime", said["walltime"])
            spec = self.spec(walltime, resources)
        if "resource_specification" in said:
            given = self._checked("resource_specification", said["resource_specification"])
            # None asks for nothing, and so takes nothing away of what the app asks for.
            if given is not None:
                spec = self.spec(walltime, {**resources, **given} if isinstance(given, Mapping) else given)
        if "label" in said and ("label" not in self._declared or isinstance(said["label"], str)):
            label = self._checked("label", said["label"])
        for name in _YIELDING:
            if name not in self._declared:
                kwargs.pop(name, None)
        outputs = self._outputs(kwargs, base.outputs)
        self._inputs(kwargs)
        stdout = self._stream("stdout", kwargs, base.stdout)
        stderr = self._stream("stderr", kwargs, base.stderr)
        for name in _SHARED:
            if name in kwargs and not kwargs[name] and name not in self.takes:
                del kwargs[name]
        return args, kwargs, CallOptions(spec, outputs, stdout, stderr, label, base.executors)

    def spec(self, walltime: object, resources: object) -> TaskSpec:
        """Return the class of tasks of this function with a walltime and a resource specification.

        Raises:
            ConfigurationError: one of them has an impossible value.
        """
        if self.on_ranks and isinstance(resources, Mapping):
            resources = with_ranks(resources)
        return task_spec(self._name, walltime, resources)

    def _said(self, args: _Args, kwargs: _Kwargs) -> _Kwargs:
        """Return the keywords that a call says, with those that it gives to the function by position."""
        said = dict(kwargs)
        for name, (place, _) in self._declared.items():
            if place is not None and place < len(args):
                said.setdefault(name, args[place])
        return said

    def _with_defaults(
        self, said: _Kwargs, walltime: float | None, resources: dict[str, object], label: str
    ) -> tuple[float | None, dict[str, object], str]:
        """Return what counts where the call says nothing: what the app or its options say, else the defaults."""
        defaults = {
            name: self._checked(name, default)
            for name, (_, default) in self._declared.items()
            if name not in said and default is not _EMPTY
        }
        return (
            defaults.get("walltime") if walltime is None else walltime,
            {**(defaults.get("resource_specification") or {}), **resources},
            label or defaults.get("label", ""),
        )

    def _checked(self, keyword: str, value: object) -> Any:
        """Return the value of one of Flow's keywords, which the function may have a parameter for.

        Raises:
            ConfigurationError: it is impossible. A label of a function with such a parameter may be anything.
        """
        declared = keyword in self._declared
        if keyword == "label":
            return "" if declared and not isinstance(value, str) else _checked_label(value, self._name)
        if not declared:
            return value  # checked with all else that the task asks for
        try:
            if keyword == "resource_specification":
                task_spec(self._name, None, value)
            elif value is not None:
                checked_walltime(self._name, value)
            return value
        except ConfigurationError as error:
            told = f"{error}. Its parameter {keyword!r} is Flow's keyword, too: rename it if it means something else"
            raise ConfigurationError(told) from None

    def _by_keyword(self, args: _Args, kwargs: _Kwargs) -> tuple[_Args, _Kwargs]:
        """Give shared keywords passed by position as keywords, and defaults as if passed."""
        kwargs = dict(kwargs)
        first = min(self._positions.values(), default=len(args))
        if first < len(args):
            names = {position: name for name, position in self._positions.items()}
            if set(range(first, len(args))) <= names.keys():  # else something else comes after: leave it as it is
                for position in range(first, len(args)):
                    kwargs.setdefault(names[position], args[position])
                args = args[:first]
        # A default such as ``stdout=AUTO_LOGNAME`` in the function's own signature counts as if the call had said it.
        for name, default in self._defaults.items():
            if name not in kwargs and not _holds_position(self._positions.get(name), args):
                kwargs[name] = default
        return args, kwargs

    def _inputs(self, kwargs: _Kwargs) -> None:
        if "inputs" not in kwargs:
            return
        inputs = kwargs["inputs"]
        if inputs is None:
            return
        if not isinstance(inputs, (list, tuple, set, frozenset)):
            raise ConfigurationError(
                f"app {self._name!r}: inputs must be a list of futures, files or values, not {inputs!r}"
            )
        # A list of its own: the caller may change the one given before the task runs.
        kwargs["inputs"] = list(inputs)

    def _outputs(self, kwargs: _Kwargs, base: tuple[File, ...]) -> tuple[File, ...]:
        files = checked_outputs(kwargs.get("outputs") or (), self._name) or base
        if self._kind is AppKind.JOIN and any(file.kind == "pattern" for file in files):
            raise ConfigurationError(
                f"app {self._name!r}: a join app makes no files itself: declare the Glob for the app that makes them, "
                "and return its future"
            )
        if files:
            # Also where the function does not take them: staging looks there.
            kwargs["outputs"] = list(files)
        return files

    def _stream(self, keyword: str, kwargs: _Kwargs, base: StdStream | None) -> StdStream | None:
        given = kwargs.get(keyword)
        # What the call says comes before what options() said.
        value = base if given is None else given
        if self._kind is not AppKind.BASH:
            return self._uncaptured(keyword, value)
        stream = checked_stream(value, keyword, self._name)
        if stream is None or keyword not in self.takes:
            kwargs.pop(keyword, None)
            if keyword in self.takes:
                kwargs[keyword] = None
        else:
            kwargs[keyword] = stream
        return stream

    def _uncaptured(self, keyword: str, value: object) -> StdStream | None:
        if value is None:
            return None
        if keyword not in self.takes:
            raise BadStdStreamFile(
                f"app {self._name!r}: {keyword}= is written for bash apps only; the function of a {self._kind.value} "
                f"app may take a parameter {keyword!r} and write there itself"
            )
        try:
            return checked_stream(value, keyword, self._name)
        except BadStdStreamFile:
            return None  # a parameter of the user's own that happens to have this name


_EMPTY: Final = inspect.Parameter.empty


def parameters_of(func: Callable[..., object]) -> tuple[str, ...] | None:
    """Return the names of a function's parameters; None where it takes any keyword, or they are not known."""
    declared = _declared(func)
    if not declared or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in declared.values()):
        return None
    return tuple(f"*{name}" if _starred(parameter) else name for name, parameter in declared.items())


def _declared(func: Callable[..., object]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(func).parameters)
    except (TypeError, ValueError):  # some callables of C have no signature
        return {}


def _starred(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _place(name: str, declared: dict[str, inspect.Parameter]) -> int | None:
    """Return the position of a parameter among those that may be given by position; None if it may not."""
    by_keyword = declared[name].kind is inspect.Parameter.KEYWORD_ONLY
    return None if by_keyword else list(declared).index(name)


def _positions(declared: dict[str, inspect.Parameter]) -> dict[str, int]:
    """Return the positions of the shared keywords that may be passed by position and by keyword."""
    both = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return {
        name: position
        for position, (name, parameter) in enumerate(declared.items())
        if name in _SHARED and parameter.kind is both
    }


def _no_files(options: CallOptions) -> bool:
    return not options.outputs and options.stdout is None and options.stderr is None


def _holds_position(position: int | None, args: _Args) -> bool:
    return position is not None and position < len(args)


def checked_outputs(outputs: object, app: str) -> tuple[File, ...]:
    """Return what was given as ``outputs=`` as Files.

    Raises:
        ConfigurationError: it is no list of files; the message names the app.
    """
    if not isinstance(outputs, (list, tuple)):
        raise ConfigurationError(f"app {app!r}: outputs must be a list of files, not {outputs!r}")
    return tuple(_output_file(item, app) for item in outputs)


def _output_file(item: object, app: str) -> File:
    if isinstance(item, File):
        return item
    if isinstance(item, (str, os.PathLike)):
        return File(item)
    raise ConfigurationError(f"app {app!r}: outputs must hold Files or paths, not {type(item).__name__} {item!r}")


def _checked_label(value: object, app: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(f"app {app!r}: label must be text, not {value!r}")
    return value
