"""Launchers with Parsl's options."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any, ClassVar

from flow.compat.parsl.adapters.translated import Translated, stated
from flow_providers import launchers


class Launcher(metaclass=ABCMeta):
    """Base of launchers: a callable ``(command, tasks_per_node, nodes_per_block) -> str``."""

    def __init__(self, debug: bool = True) -> None:
        self.debug = debug

    @abstractmethod
    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the shell code that runs the command on all nodes."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(debug={self.debug!r})"


class _Debug(Translated):
    """``debug`` shows in Parsl what its script does; Flow's scripts say in any case what failed."""

    parsl_order: ClassVar[tuple[str, ...]] = ("debug", "overrides")

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        options.pop("debug", None)
        options.pop("script_dir", None)

    def __init__(self, *args: Any, **options: Any) -> None:
        # As in Parsl 0.9, where free text came first.
        if args and isinstance(args[0], str):
            args = (True, *args)
        super().__init__(*args, **options)
        self.debug = bool(options.get("debug", args[0] if args else True))


class SimpleLauncher(_Debug, launchers.SimpleLauncher):
    """Runs the command once, as it is."""

    parsl_order = ("debug",)

    def __init__(self, debug: bool = True) -> None:
        self.debug = debug


class SingleNodeLauncher(_Debug, launchers.SingleNodeLauncher):
    """Starts the copies of a node. The block fails where any copy does, as with ``fail_on_any=True``."""

    parsl_order = ("debug", "fail_on_any")

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        options.pop("fail_on_any", None)

    def __init__(self, debug: bool = True, fail_on_any: bool = False, **options: Any) -> None:
        super().__init__(debug=debug, **options)
        self.fail_on_any = fail_on_any


class SrunLauncher(_Debug, launchers.SrunLauncher):
    """One ``srun`` over the nodes."""


class SrunMPILauncher(_Debug, launchers.SrunMPILauncher):
    """A ``srun`` for each copy."""


class AprunLauncher(_Debug, launchers.AprunLauncher):
    """One ``aprun`` over the nodes."""


class JsrunLauncher(_Debug, launchers.JsrunLauncher):
    """One ``jsrun`` over the nodes."""


class GnuParallelLauncher(_Debug, launchers.GnuParallelLauncher):
    """GNU parallel over the nodes."""


class MpiExecLauncher(_Debug, launchers.MpiExecLauncher):
    """One ``mpiexec`` over the nodes. ``bind_cmd`` stands before ``none`` in its options where it is given."""

    parsl_order = ("debug", "bind_cmd", "overrides")

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        bind = options.pop("bind_cmd", "--bind-to")
        if bind != "--bind-to":
            options["overrides"] = f"{bind} none {options.get('overrides', '')}".rstrip()


class MpiRunLauncher(_Debug, launchers.MpiRunLauncher):
    """One ``mpirun`` over the nodes."""

    parsl_order = ("debug", "bash_location", "overrides")
    without_effect = stated(bash_location="/bin/bash")


class WrappedLauncher(Launcher):
    """Puts text before the command, such as ``docker run image``."""

    def __init__(self, prepend: str, debug: bool = True) -> None:
        super().__init__(debug)
        self.prepend = prepend

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the command behind the text, as one argument of a shell: it has several lines."""
        return launchers.WrappedLauncher(self.prepend)(command, tasks_per_node, nodes_per_block)


for _one in (
    SimpleLauncher, SingleNodeLauncher, SrunLauncher, SrunMPILauncher, AprunLauncher, JsrunLauncher,
    GnuParallelLauncher, MpiExecLauncher, MpiRunLauncher,
):  # fmt: skip
    Launcher.register(_one)
