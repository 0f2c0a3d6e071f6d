"""Running one task where it is to run: its environment, its walltime, its steps, its function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flow_core.errors import AppException, AppTimeout
from flow_core.interfaces.call import NodeContext, TaskSpec, TaskStep

_Run = Callable[[], object]

# A number and not a flag: a task may run another one in its own place.
_worker = 0


def enter_worker() -> None:
    """Note that this process runs tasks of a script that is another process, for as long as until ``leave_worker``."""
    global _worker
    _worker += 1


def leave_worker() -> None:
    """Take one ``enter_worker`` back."""
    global _worker
    _worker -= 1


def in_worker() -> bool:
    """Tell whether this process runs a task of a script that is another process."""
    return _worker > 0


def execute(
    func: Callable[..., object],
    args: Sequence[object],
    kwargs: dict[str, object],
    spec: TaskSpec,
    steps: Sequence[TaskStep],
    where: NodeContext,
) -> object:
    """Run one task on the calling thread and return its result.

    From the outside in: the environment of the spec, its walltime, the steps in their order, the function.
    Whatever the function or a step raises comes out as it is.

    Raises:
        AppTimeout: the task ran longer than ``spec.walltime_s``.
        AppException: the spec asks for what cannot be done in this place.
    """
    # The plain case without any closure, since most tasks are such.
    if not steps and not spec.environment and spec.walltime_s is None and spec.container is None:
        return func(*args, **kwargs)
    # By the attribute: the module of that step is loaded only where a task has it.
    bound = getattr(steps[0], "bound", None) if steps else None
    if bound is not None:
        args, kwargs, steps = bound(args, kwargs, steps[1:], where)
    if spec.container is not None:
        from flow_core.remote.task_container import contained

        func, steps = contained(func, args, kwargs, spec, steps, where)

    on_ranks = getattr(steps[-1], "on_ranks", None) if steps else None
    if on_ranks is not None:  # the function and its arguments are to travel on
        call = on_ranks(func, args, kwargs)
        steps = steps[:-1]
    else:

        def call() -> object:
            """Call the function with the arguments of the task."""
            return func(*args, **kwargs)

    run: _Run = _wrapped(call, steps, where) if steps else call
    # Within the environment and around the steps: what brings files in and out counts towards the walltime.
    if spec.walltime_s is not None:
        run = _limited(run, spec.walltime_s, where.main_thread)
    if spec.environment:
        return _in_environment(run, spec.environment, steps, where)
    return run()


def _wrapped(call: _Run, steps: Sequence[TaskStep], where: NodeContext) -> _Run:
    # From the inside out, so that the first step is the outermost.
    for step in reversed(steps):
        call = _around(step, call, where)
    return call


def _around(step: TaskStep, inner: _Run, where: NodeContext) -> _Run:
    return lambda: step.run(inner, where)


def _limited(run: _Run, limit_s: float, main_thread: bool) -> _Run:
    from flow_core.remote.walltime import limited

    def call() -> object:
        """Run within the walltime, and end what the task has started where that passes."""
        import time

        began = time.monotonic()
        try:
            return limited(run, limit_s, main_thread)
        except AppTimeout:
            from flow_core.remote.processes import end_task_of_worker

            # Python is interrupted by then, but what the task has started goes on.
            end_task_of_worker(time.monotonic() - began)
            raise

    return call


def _in_environment(
    run: _Run, variables: Sequence[tuple[str, str]], steps: Sequence[TaskStep], where: NodeContext
) -> object:
    if where.main_thread:
        return with_variables(run, variables)
    if any(getattr(step, "sets_environment", False) for step in steps):
        return run()
    raise AppException(
        f"environment variables ({', '.join(name for name, _ in variables)}) cannot be set for one python app in a "
        f"thread of executor {where.executor!r}: they belong to the whole process. Use an executor whose workers are "
        "processes, or a bash app."
    )


def with_variables(run: Callable[[], object], variables: Sequence[tuple[str, str]]) -> object:
    """Call something with variables in the environment of this process, taken back after it; return its result."""
    import os

    # os.environ and not a copy: children that the task starts inherit it.
    before = {name: os.environ.get(name) for name, _ in variables}
    os.environ.update(variables)
    try:
        return run()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
