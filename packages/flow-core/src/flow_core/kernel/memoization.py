"""Results of cached calls: found again, checked, shared with identical calls, and stored.

Contents of input files count in the key of a call, and versions of the files that it made are stored with its result.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from flow_core.files import File, masked
from flow_core.futures.callbacks import Limit, hook_calls
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.plain_data import are_harmless
from flow_core.guard import attribute, is_a, one_line, pass_signal, to_log
from flow_core.hooks import Calling, Handling, Noted, hook_name, is_own
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import Inputs, MemoEntry, Memoizer, MemoKey
from flow_core.interfaces.versions import content_of, names_of, only_made, state_of, what_changed
from flow_core.kernel.arguments import are_plain
from flow_core.kernel.directory import directory_of
from flow_core.kernel.output_owners import outputs_of
from flow_core.memo.key import FILE, SOURCE, with_container, with_contents, with_ranks, with_streams
from flow_core.remote.reductions import Recording

if TYPE_CHECKING:
    import logging

    from flow_core.graph.task import Task, TaskDetails
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Stored
    from flow_core.interfaces.staging import Versions
    from flow_core.kernel.isolation import Isolation
    from flow_core.kernel.reactor import Reactor
    from flow_core.kernel.task_events import TaskEventEmitter
    from flow_core.staging.manager import StagingManager


_MARK = "flow: result and versions of outputs, 1"  # text that no result begins with by chance; with its version


def with_versions(value: object, versions: Versions) -> object:
    """Return what is stored for a result: builtin types alone around it, which any memoizer and Python can keep."""
    return _MARK, tuple(versions), value


def without_versions(stored: object) -> tuple[object, Versions]:
    """Return the result, and the versions that were stored with it, none if there were none."""
    if type(stored) is tuple and len(stored) == 3 and stored[0] == _MARK:
        return stored[2], stored[1]
    return stored, ()


_UNKNOWN = "a version that is not known"
_EXPLAINED_MAX = 10
"""Calls of each app that were not found and are explained in the log: to explain a million would take long."""


def that_count(task: Task, key: MemoKey, directory: str) -> list[File]:
    """Return the files that a call may read, each once, of which the contents are to be looked at.

    Those that are declared as outputs are what the call makes, unless they are among its ``inputs`` too. Of files
    whose digests are stated the names are enough.
    """
    if task.app.cache_files == "names":
        return []
    made = {_place(file, directory) for file in outputs_of(task.options)}
    if made:
        given = task.kwargs.get("inputs")
        for each in given if isinstance(given, (list, tuple)) else ():
            if isinstance(each, File):
                # An output that is an input too is read before it is changed: its content counts.
                made.discard(_place(each, directory))
    found: dict[tuple[str, str], File] = {}
    for file in key.files:
        place = _place(file, directory)
        if file.kind != "pattern" and file.digest is None and place not in made:
            # Each once: the same file may be given as two arguments, and digests read the whole of it.
            found.setdefault(place, file)
    return list(found.values())


def _place(file: File, directory: str) -> tuple[str, str]:
    if file.scheme == "file":
        return "file", os.path.normpath(os.path.join(directory, file.place))
    return file.url, file.local_path or ""


def counted(inputs: Inputs, versions: Versions) -> MemoKey:
    """Return the key of a call whose files have these versions.

    That a version is not known counts, too: what was remembered by names alone, as the user wanted it, is not found.
    """
    known = zip(inputs.files, versions, strict=True)
    contents = [(masked(file.url), _UNKNOWN if version is None else version) for file, version in known]
    return with_contents(inputs.named, contents)


def compare(inputs: Inputs, now: Versions) -> None:
    """Note which files are not as they were when the key was made, and under which key to remember the result then."""
    changed, read, known = [], list(inputs.versions), True
    for index, (file, was, found) in enumerate(zip(inputs.files, inputs.versions, now, strict=True)):
        before, after = was and state_of(was), found and state_of(found)
        brought = file.scheme != "file" and file.url in inputs.read  # so it is known, or would be if there were one
        if (after != before and (before is not None or brought)) or (brought and after is None):
            changed.append(f"{masked(file.url)} ({_how(before, after)})")
            known = known and brought and after is not None
            read[index] = after
    inputs.changed = tuple(changed)
    inputs.instead = counted(inputs, read) if changed and known else None


def _how(before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return "which version was read cannot be told"
    if not after:
        return "it is gone"
    if not before:
        return "it was not there before"
    return "other content" if content_of(before) != content_of(after) else "it was written again"


class MissReporter:
    """Log lines about calls that are not found, or not remembered, because of their files. Any thread."""

    def __init__(self, emitter: TaskEventEmitter, logger: logging.Logger) -> None:
        """Take the emitter, which logs a message once, and the log."""
        self._emitter = emitter
        self._logger = logger
        self._explained: Counter[object] = Counter()

    def missed(self, task: Task, memoizer: Memoizer) -> None:
        """Say of a call that is not found whether that is for its files; memoizers of the user's own are not asked."""
        inputs = task.more().inputs
        if inputs is None or not is_own(memoizer):
            return
        # Found by names alone: so nothing but the contents, which the key now has, makes the difference.
        if memoizer.lookup(inputs.named) is not None:
            told = (
                "Calls are run again that were remembered without the contents of their files, by an older version of "
                "Flow or with cache_files='names', such as %s"
            )
            self._emitter.once(told, task)
        elif self._explained[task.app] < _EXPLAINED_MAX:
            self._explained[task.app] += 1
            self._explain(task, memoizer)

    def _explain(self, task: Task, memoizer: Memoizer) -> None:
        """Say, once an app, which files have changed, and how, where nothing else has."""
        key = task.more().memo_key
        assert key is not None
        reason = memoizer.explain(key)
        if reason.changed and not reason.failed and all(name.startswith(FILE) for name in reason.changed):
            self._explained[task.app] = _EXPLAINED_MAX
            told = "Calls of app %r are run again whose files have changed, such as %s: %s. 'flow cache why' tells all"
            self._logger.info(told, task.app.name, task, reason.changes)

    def changed(self, task: Task, inputs: Inputs) -> None:
        """Say of a result that it is not remembered, since its files changed while its task ran."""
        self._emitter.warn_once(
            task.app,
            "The result of %s is not remembered, since it is not known that its files were, when it read them, what "
            "they had been at the call: %s. Where what they hold need not count, make the app with "
            "cache_files='names'. Further such results of this app are not mentioned",
            task,
            ", ".join(inputs.changed),
        )


class MemoizedCalls:
    """Calls the memoizer of a run, and lets tasks end or run by its answers. Any thread; nothing here waits."""

    def __init__(
        self,
        reactor: Reactor,
        memoizer: Memoizer | None,
        staging: StagingManager,
        emitter: TaskEventEmitter,
        logger: logging.Logger,
        apart: Isolation,
        allowed: Callable[[Task], tuple[Executor, ...]],
        place: Callable[[Task, object], None],
        fail: Callable[[Task, BaseException], None],
        limit: Callable[[Task], Limit | None],
        hook_timeout_s: float | None,
    ) -> None:
        """Take the parts of a kernel, and what tells who may run a task, has it run, and has it fail.

        ``limit`` says how long a hook may keep a task that fails then; one that keeps results may take as long.
        """
        self._reactor = reactor
        self._core: GraphCore = reactor.core
        self._memoizer = memoizer
        # By default it is ``lookup`` by another name; one of the user's need not be a Memoizer, and may lack it.
        self._by_call = getattr(type(memoizer), "lookup_call", Memoizer.lookup_call) is not Memoizer.lookup_call
        self._staging = staging
        self._emitter = emitter
        self._logger = logger
        self._isolation = apart
        self._allowed = allowed
        self._place = place
        self._fail = fail
        self._limit = limit
        self._hook_timeout_s = hook_timeout_s
        self._files = MissReporter(emitter, logger)

    def make_key(self, task: Task) -> None:
        """Make the key of a call whose arguments are resolved, and tell the graph. Raises what making it raises.

        If files count in it, that is when it is known what they hold. A call has none that may use what no key tells:
        it runs as if its app were not cached.
        """
        assert self._memoizer is not None
        with Recording() as said:
            key = self._key(task, self._memoizer)
        if said:
            task.more().reductions = said
        # A key that does not hold all that the function reads would give the results of other values.
        if task.app.cache_globals != "named" and (unknown := _unknown_names(task, key)):
            self._report_unknown(task, unknown)
            self._place(task, None)
            return
        # Of what is sent to another process none of these values is there, or an old one.
        if task.app.cache_globals != "named" and (mains := self._of_main(task)):
            self._tell_main(task, mains)
            self._place(task, None)
            return
        files = that_count(task, key, directory_of(task)) if key.files else ()
        if files:
            task.more().inputs = inputs = Inputs(key, files)
            looking = self._look_at_inputs(task, inputs, self._allowed(task)[0])
            looking.add_done_callback(partial(self._keyed, task, inputs))
        else:
            task.more().memo_key = key
            self._reactor.post(self._core.keyed, task)

    def _report_unknown(self, task: Task, functions: Sequence[str]) -> None:
        self._emitter.warn_once(
            task.app,
            "Results of cached app %r are not remembered, such as that of %s: it takes globals by names that show only "
            "as it runs (globals()[...], f_globals, eval, exec), in %s, so no key tells which values these are. Name "
            "such globals or pass them as arguments; if they make no difference, say so with cache_globals='named'",
            task.app.name,
            task,
            ", ".join(f"{name}()" for name in functions),
        )

    def _of_main(self, task: Task) -> Sequence[str]:
        """Return the functions of a call that take ``__main__`` as a module, if it may go to another process."""
        if task.snapshot is None or all(executor.in_process for executor in self._allowed(task)):
            return ()
        try:
            return task.snapshot.identity().mains
        except Exception:  # it has none, and so no key
            return ()

    def _tell_main(self, task: Task, functions: Sequence[str]) -> None:
        self._emitter.warn_once(
            task.app,
            "Results of cached app %r are not remembered, such as that of %s: it takes __main__ as a module, in %s, "
            "which in another process is not the script. Name globals as such or pass them as arguments; if they make "
            "no difference, say so with cache_globals='named'",
            task.app.name,
            task,
            ", ".join(f"{name}()" for name in functions),
        )

    def _look_at_inputs(
        self, task: Task, inputs: Inputs, executor: Executor, read: dict[str, str] | None = None
    ) -> Future[Versions]:
        return self._staging.look_at_inputs(executor, inputs.files, directory_of(task), str(task), read)

    def _keyed(self, task: Task, inputs: Inputs, looked: Future[Versions]) -> None:
        try:
            inputs.versions = looked.result()
            task.more().memo_key = counted(inputs, inputs.versions)
            self._reactor.post(self._core.keyed, task)
        except BaseException as error:
            self._fail(task, error)

    def _key(self, task: Task, memoizer: Memoizer, call: Call | None = None) -> MemoKey:
        with Calling(task, "memoizer", memoizer, "key") as calling:
            key = memoizer.key(task.app.identity, task if call is None else call)
            if not is_a(key, MemoKey) or type(key.digest) is not bytes:
                calling.gave(key, "a MemoKey with a digest of bytes")
        # Functions need not take these keywords, so they are no arguments of the call.
        streams = _streams_to_files(task)
        if streams:
            key = with_streams(key, streams)
        if task.spec.resources.ranks is not None:
            key = with_ranks(key, task.spec.resources)
        if task.spec.container is None:
            return key
        from flow_core.memo.image_identity import described

        return with_container(key, described(task.spec.container))

    def look_up(self, task: Task, _given: object) -> None:
        """Use the remembered result of a call, or have it run: also where an output of it is gone or another by now."""
        stored = self._stored(task)
        if stored is None:
            assert self._memoizer is not None
            self._files.missed(task, self._memoizer)
            self._place(task, None)
        # A result whose outputs are gone is of no use: the next task would not find its file. So these are looked at.
        elif not outputs_of(task.options):
            self._read(task, stored, partial(self._use, task, stored))
        else:
            looking = self._look_at_outputs(task, self._allowed(task)[0])
            looking.add_done_callback(partial(self._looked, task, stored))

    def _stored(self, task: Task) -> Stored | None:
        """Return what the memoizer has for the key of a call. Raises what a memoizer of the user's own raises."""
        memoizer, key = self._memoizer, task.more().memo_key
        assert memoizer is not None
        assert key is not None
        with Calling(task, "memoizer", memoizer, "lookup_call" if self._by_call else "lookup"):
            return memoizer.lookup_call(key, task) if self._by_call else memoizer.lookup(key)

    def _look_at_outputs(self, task: Task, executor: Executor) -> Future[Versions]:
        return self._staging.look(executor, outputs_of(task.options), directory_of(task), str(task))

    def _looked(self, task: Task, stored: Stored, looked: Future[Versions]) -> None:
        try:
            self._read(task, stored, partial(self._use, task, stored, looked.result()))
        except BaseException as error:
            self._fail(task, error)

    def _read(self, task: Task, stored: Stored, use: Callable[[], None]) -> None:
        """Have a remembered result read: apart, where that may call methods of the user's objects, or read a file."""
        if attribute(stored, "at_once", True) is True:
            use()
        else:
            reading = Handling(task, "the reading of", "remembered result")
            limit = None if is_own(stored) else self._limit(task)
            self._isolation.do(task, reading, use, partial(self._fail, task), limit)

    def _use(self, task: Task, stored: Stored, now: Versions = ()) -> None:
        try:
            with Calling(task, "remembered result", stored, "result"):
                value, made = without_versions(stored.result())
        except BaseException as error:
            pass_signal(error)
            # Kept for the entry that replaces it, so that it is known later why the call ran.
            task.more().again = f"its remembered result could not be used: {one_line(error)}"
            told = "A remembered result of %s cannot be used, so it is run again: %s"
            self._logger.warning(told, task, one_line(error))
            self._place(task, None)
            return
        outputs = outputs_of(task.options)
        changed = what_changed(made, now)
        if changed is None and len(made) < len(outputs) and any(file.kind == "pattern" for file in outputs):
            changed = len(made)  # which files it made is not known
        if changed is not None:
            told = "gone" if not now[changed] else "not as it made them"
            url = masked(outputs[changed].url)
            how = "an output was gone" if not now[changed] else "an output was no longer as it had been made"
            task.more().again = f"{how}: {url}"
            self._emitter.once(f"Remembered calls are run again whose outputs are {told}, such as %s of %s", url, task)
            self._place(task, None)
        else:
            self._emitter.once("Remembered results are used and calls not run again, such as that of %s", task)
            patterns = [number for number, file in enumerate(outputs) if file.kind == "pattern"]
            if patterns:
                task.more().found = {number: names_of(made[number]) for number in patterns}
            self._reactor.post(self._core.remembered, (task, value))

    def share(self, task: Task, value: object) -> None:
        """Give a follower a copy of its leader's result, or the result itself where the memoizer has no copy of it."""
        stored = self._stored(task)
        if stored is None:
            self._reactor.post(self._core.remembered, (task, value))
        else:
            self._read(task, stored, partial(self._use_shared, task, stored, value))

    def _use_shared(self, task: Task, stored: Stored, value: object) -> None:
        try:
            value = without_versions(stored.result())[0]
        except Exception as error:
            self._logger.warning("%s shares the result object of an identical call, which has no copy: %s", task, error)
        self._reactor.post(self._core.remembered, (task, value))

    def differ(self, task: Task) -> tuple[str, ...]:
        """Return the names of arguments that are not as they were when the key was made."""
        memoizer, inputs = self._memoizer, task.more().inputs
        before = task.more().memo_key if inputs is None else inputs.named
        arguments = task.more().original or (task.args, task.kwargs)
        # Plain values cannot change in place: most calls make no second key.
        if memoizer is None or before is None or are_plain(*arguments):
            return ()
        try:
            # A whole key again: only so are changes deep inside of arguments found.
            now = self._key(task, memoizer, Call(task.func, *arguments, snapshot=task.snapshot))
        except BaseException as error:  # the try is out: this must not count as a refusal of its executor
            pass_signal(error)
            return (f"its key, which could not be made again: {one_line(error)}",)
        if now.digest == before.digest:
            return ()
        parts = dict(before.parts)
        changed = (name for name, part in now.parts if name != SOURCE and parts.get(name) != part)
        return tuple(changed) or ("its arguments",)

    def keep(self, results: Sequence[tuple[Task, object]]) -> None:
        """Remember results and let their tasks end, as soon as it is known what these made and have read."""
        others = []
        for task, value in results:
            details = task.more()
            if details.memo_key is not None and task.executor is not None and details.inputs is not None:
                # Of a file that was written meanwhile it is not known which content was read: no key stands for that.
                looking = self._look_at_inputs(task, details.inputs, task.executor, details.inputs.read)
                looking.add_done_callback(partial(self._keep_if_unchanged, task, value, details.inputs))
            elif outputs_of(task.options) and details.memo_key is not None and task.executor is not None:
                self._keep_with_outputs(task, value, task.executor)
            else:
                others.append((task, value))
        if others:
            self._keep_now(others)

    def _keep_if_unchanged(self, task: Task, value: object, inputs: Inputs, looked: Future[Versions]) -> None:
        try:
            compare(inputs, looked.result())
            stored = not inputs.changed or inputs.instead is not None
            if stored and outputs_of(task.options) and task.executor is not None:
                self._keep_with_outputs(task, value, task.executor)
            else:
                self._keep_now([(task, value)])
        except BaseException as error:
            self._fail(task, error)

    def _keep_with_outputs(self, task: Task, value: object, executor: Executor) -> None:
        looking = self._look_at_outputs(task, executor)
        looking.add_done_callback(partial(self._keep_with_versions, task, value))

    def _keep_with_versions(self, task: Task, value: object, looked: Future[Versions]) -> None:
        try:
            task.more().made = only_made(looked.result(), task.more().found)
            self._keep_now([(task, value)])
        except BaseException as error:
            self._fail(task, error)

    def _keep_now(self, results: Sequence[tuple[Task, object]]) -> None:
        if self._memoizer is not None and not is_own(self._memoizer):
            # A memoizer of the user's may block for long; this thread may be the one that brings results.
            who = hook_name("memoizer", self._memoizer, "store")
            limit = None
            if self._hook_timeout_s is not None:
                limit = Limit(self._hook_timeout_s, lambda _hook, told: self._not_stored(results, told))
            hook_calls.soon(self._store, results, lambda _call, _given: f"{who}, called for {results[0][0]},", limit)
            return
        # Results of plain types are stored together; one that may call the user's code holds up its own task only.
        plain: list[tuple[Task, object]] = []
        others: list[tuple[Task, object]] = []
        for task, value in results:
            harmless = are_harmless((*task.args, value), task.kwargs)
            (plain if harmless else others).append((task, value))
        if plain:
            self._store(plain)
        for task, value in others:
            storing = Handling(task, "the storing of", "result")
            self._isolation.do(task, storing, partial(self._store, ((task, value),)), partial(self._fail, task))

    def _store(self, results: Sequence[tuple[Task, object]]) -> None:
        """Remember results, all of a batch in one write, and let their tasks end."""
        entries = [
            MemoEntry(key, task.tid, _to_store(details, value), details.started_ns, details.ended_ns, details.again)
            for task, value in results
            if (details := task.more()).memo_key is not None and (key := self._key_to_store(task)) is not None
        ]
        if entries and self._memoizer is not None:
            try:
                with Noted([task for task, _ in results], "memoizer", self._memoizer, "store"):
                    self._memoizer.store(entries)
            except BaseException as error:
                pass_signal(error)
                # The results are there all the same: a full disk must not fail tasks that went well.
                hook = hook_name("memoizer", self._memoizer, "store")
                told = "The results of %d tasks, such as task %d, could not be remembered: %s raised %s"
                self._logger.error(
                    told, len(entries), entries[0].task_id, hook, one_line(error), exc_info=to_log(error)
                )
        self._let_end(results)

    def _not_stored(self, results: Sequence[tuple[Task, object]], told: str) -> None:
        """End tasks whose results the memoizer did not store in time; ``told`` says why."""
        text = "The results of %d tasks, such as %s, are not known to be remembered: %s"
        self._logger.error(text, len(results), results[0][0], told)
        self._let_end(results)

    def _let_end(self, results: Sequence[tuple[Task, object]]) -> None:
        for task, value in results:
            self._reactor.post(self._core.published, (task, value, None))

    def _key_to_store(self, task: Task) -> MemoKey | None:
        """Return the key under which a result may be remembered: that of what the task was given, if it is known."""
        inputs = task.more().inputs
        if inputs is None or not inputs.changed:
            return task.more().memo_key if self._is_what_its_key_says(task) else None
        key = inputs.instead if self._is_what_its_key_says(task) else None
        if inputs.instead is None:
            self._files.changed(task, inputs)
        task.more().changed = (*(task.more().changed or ()), *inputs.changed)  # so identical calls look for themselves
        return key

    def _is_what_its_key_says(self, task: Task) -> bool:
        """Return whether a result may be remembered: not if what it was made of changed after its key was made."""
        changed = task.more().changed
        # Another process got copies when the try was handed over; threads work on the objects themselves until the end.
        in_process = task.executor is None or task.executor.in_process
        if changed is None or (in_process and not changed):
            changed = self.differ(task)
        if in_process and not changed and task.snapshot is not None:
            changed = task.snapshot.changes()
        if not changed:
            return True
        task.more().changed = changed
        self._emitter.warn_once(
            task.app,
            "The result of %s is not remembered, since what it was made of changed between the call and its end, or "
            "says something else of itself each time (__reduce__, __getstate__): %s. Tasks in threads use the script's "
            "own objects: do not change what a cached app names or is given while it runs, or run it in another "
            "process. Further such results of this app are not mentioned",
            task,
            ", ".join(changed),
        )
        return False


def _to_store(details: TaskDetails, value: object) -> object:
    return value if details.made is None else with_versions(value, details.made)


def _streams_to_files(task: Task) -> list[tuple[str, str]]:
    """Return which standard streams of a call go to Files, which are outputs of it, with their URLs."""
    options = task.options
    if options.stdout is None and options.stderr is None:  # as of most calls
        return []
    streams = (("stdout", options.stdout), ("stderr", options.stderr))
    return [(name, stream.url) for name, stream in streams if isinstance(stream, File)]


def _unknown_names(task: Task, key: MemoKey) -> Sequence[str]:
    """Return the functions of a call that take globals by names which show only as they run.

    A memoizer of the user's own may say nothing of them: then the app's own function is asked.
    """
    if key.unknown or task.snapshot is None:
        return key.unknown
    try:
        return task.snapshot.identity().unknown
    except Exception:  # it has none, which matters only to those who make keys of it
        return ()
