"""What decorators make, and how a call is divided between the function and Flow."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from flow_core.active import active_or_none, set_active
from flow_core.apps.app import AppBase
from flow_core.apps.decorators import App, bash_app, join_app, python_app
from flow_core.apps.definition import NO_OPTIONS, AppDefinition, AppKind, CallOptions
from flow_core.apps.special import AUTO_LOGNAME, checked_stream
from flow_core.errors import BadStdStreamFile, ConfigurationError, InvalidAppTypeError, NoDataFlowKernelError
from flow_core.files import File


@dataclass
class Seen:
    """One call as a kernel gets it."""

    app: AppDefinition
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CallOptions


@dataclass
class RecordingKernel:
    calls: list[Seen] = field(default_factory=list)

    def submit_call(
        self, app: AppDefinition, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Future[Any]:
        self.calls.append(Seen(app, args, kwargs, options))
        return Future()

    @property
    def last(self) -> Seen:
        return self.calls[-1]


@pytest.fixture
def kernel() -> Iterator[RecordingKernel]:
    before = active_or_none()
    recording = RecordingKernel()
    set_active(recording)
    yield recording
    set_active(before)


@python_app
def importable(x: int, y: int = 2) -> int:
    """Add."""
    return x + y


# -- decorating


def test_an_app_keeps_name_docstring_and_signature_of_its_function() -> None:
    assert importable.__name__ == "importable"
    assert importable.__doc__ == "Add."
    assert str(inspect.signature(importable)) == "(x: 'int', y: 'int' = 2) -> 'int'"
    assert importable.__wrapped__(1) == 3


@pytest.mark.parametrize(
    ("decorator", "kind"), [(python_app, AppKind.PYTHON), (bash_app, AppKind.BASH), (join_app, AppKind.JOIN)]
)
def test_decorators_work_with_and_without_parentheses(decorator: Any, kind: AppKind) -> None:
    def function() -> str:
        return ""

    assert decorator(function).definition.kind is kind
    assert decorator()(function).definition.kind is kind
    assert decorator(cache=True)(function).definition.cache


def test_executors_may_be_all_one_label_or_several() -> None:
    def function() -> None: ...

    assert python_app(executors="all")(function).definition.executors is None
    assert python_app(executors="gpu")(function).definition.executors == ("gpu",)
    assert python_app(executors=["a", "b", "a"])(function).definition.executors == ("a", "b")


@pytest.mark.parametrize("executors", [[], 5, [""], [3]])
def test_impossible_executors_are_refused_by_name(executors: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'function'.*executors"):

        @python_app(executors=executors)
        def function() -> None: ...


@pytest.mark.parametrize("wrong", [5, "text", staticmethod(len)])
def test_only_functions_become_apps(wrong: Any) -> None:
    with pytest.raises(InvalidAppTypeError):
        python_app(wrong)


def test_an_async_function_is_refused() -> None:
    async def later() -> None: ...

    with pytest.raises(InvalidAppTypeError, match="async"):
        python_app(later)


def test_an_app_is_not_decorated_twice() -> None:
    with pytest.raises(InvalidAppTypeError, match="already"):
        python_app(importable)


def test_the_old_decorator_makes_apps_by_the_name_of_their_kind() -> None:
    assert App("python")(lambda: 1).definition.kind is AppKind.PYTHON
    assert App("bash")(lambda: "").definition.kind is AppKind.BASH
    with pytest.raises(InvalidAppTypeError, match="'perl'"):
        App("perl")


def test_the_identity_names_the_app_and_ignores_streams() -> None:
    @python_app(ignore_for_cache=["y"])
    def function(x: int, y: int) -> None: ...

    identity = function.definition.identity
    assert identity.name.endswith("function")
    assert identity.func is function.__wrapped__
    assert set(identity.ignore) == {"y", "stdout", "stderr"}
    assert identity.cache_tag.startswith("python")


# -- calling


def test_a_call_without_a_loaded_config_says_what_to_do() -> None:
    assert active_or_none() is None
    with pytest.raises(NoDataFlowKernelError, match=r"flow\.load"):
        importable(1)


def test_the_kernel_is_looked_up_at_the_call(kernel: RecordingKernel) -> None:
    importable(1, y=3)
    assert kernel.last == Seen(importable.definition, (1,), {"y": 3}, NO_OPTIONS)
    other = RecordingKernel()
    set_active(other)
    importable(5)
    assert (len(kernel.calls), len(other.calls)) == (1, 1)


def test_an_app_with_a_kernel_of_its_own_ignores_the_active_one(kernel: RecordingKernel) -> None:
    own = RecordingKernel()

    @python_app(data_flow_kernel=own)
    def function() -> None: ...

    function()
    assert (len(own.calls), len(kernel.calls)) == (1, 0)


def test_apps_may_be_methods(kernel: RecordingKernel) -> None:
    class Model:
        @python_app
        def fit(self, x: int) -> int:
            return x

    model = Model()
    model.fit(3)
    assert kernel.last.args == (model, 3)


def test_a_call_that_asks_for_nothing_shares_its_options(kernel: RecordingKernel) -> None:
    importable(1)
    importable(2)
    assert kernel.calls[0].options is kernel.calls[1].options is NO_OPTIONS


def test_walltime_label_and_resources_are_flows(kernel: RecordingKernel) -> None:
    importable(1, walltime=3, label="first", resource_specification={"cores": 2, "memory": 100})
    seen = kernel.last
    assert seen.kwargs == {}
    assert (seen.options.spec.walltime_s, seen.options.label) == (3.0, "first")
    assert (seen.options.spec.resources.cores, seen.options.spec.resources.memory_mb) == (2.0, 100)


def test_a_call_that_gives_no_resources_takes_none_away_of_what_the_app_asks_for(kernel: RecordingKernel) -> None:
    asking = importable.options(resource_specification={"cores": 2, "memory": 100})
    asking(1, resource_specification=None)
    asking(1, walltime=3, resource_specification=None)
    asking(1, resource_specification={})
    for call in kernel.calls:
        assert (call.options.spec.resources.cores, call.options.spec.resources.memory_mb) == (2.0, 100)
    assert kernel.calls[1].options.spec.walltime_s == 3.0


def test_equal_specifications_are_one_object(kernel: RecordingKernel) -> None:
    importable(1, walltime=3)
    importable(2, walltime=3.0)
    assert kernel.calls[0].options.spec is kernel.calls[1].options.spec


DECLARED: dict[str, tuple[object, Callable[[Any], object], object]] = {
    "walltime": (5, lambda options: options.spec.walltime_s, 5.0),
    "label": ("mine", lambda options: options.label, "mine"),
    "resource_specification": ({"cores": 2}, lambda options: options.spec.resources.cores, 2.0),
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("way", ["keyword", "position", "default"])
def test_a_special_keyword_that_the_function_declares_counts_and_reaches_it(
    kernel: RecordingKernel, name: str, way: str
) -> None:
    value, found, wanted = DECLARED[name]
    namespace: dict[str, Any] = {"value": value}
    exec(f"def function(x, {name}={'value' if way == 'default' else 'None'}): return {name}", namespace)
    app: AppBase[..., Any] = python_app(namespace["function"])
    if way == "keyword":
        app(1, **{name: value})
    else:
        app(*((1, value) if way == "position" else (1,)))
    assert found(kernel.last.options) == wanted
    assert (kernel.last.args, kernel.last.kwargs) == {
        "keyword": ((1,), {name: value}),
        "position": ((1, value), {}),
        "default": ((1,), {}),  # which the function has by itself
    }[way]


def test_a_declared_walltime_counts_after_the_call_the_options_and_the_app(kernel: RecordingKernel) -> None:
    def function(walltime: float | None = 5) -> None: ...

    app = python_app(function)
    limits = []
    for call in (app, app.options(walltime=7), python_app(walltime=8)(function)):
        for keywords in ({}, {"walltime": 9}, {"walltime": None}):
            call(**keywords)
            limits.append(kernel.last.options.spec.walltime_s)
    assert limits == [5.0, 9.0, None, 7.0, 9.0, None, 8.0, 9.0, None]


def test_declared_resources_are_added_to_those_of_options(kernel: RecordingKernel) -> None:
    @python_app
    def function(resource_specification: dict[str, int] = {"cores": 2, "memory": 10}) -> None: ...

    function.options(resource_specification={"memory": 20})()
    assert (kernel.last.options.spec.resources.cores, kernel.last.options.spec.resources.memory_mb) == (2.0, 20)


def test_a_declared_label_that_is_no_text_is_the_functions_alone(kernel: RecordingKernel) -> None:
    @python_app
    def function(label: object, inputs: object = ()) -> None: ...

    function(label=5)
    assert (kernel.last.kwargs["label"], kernel.last.options.label) == (5, "")


@pytest.mark.parametrize("name", ["walltime", "resource_specification"])
def test_a_declared_keyword_that_means_something_else_is_refused_with_what_to_do(
    kernel: RecordingKernel, name: str
) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def function({name}): return {name}", namespace)
    app: AppBase[..., Any] = python_app(namespace["function"])
    with pytest.raises(ConfigurationError, match=rf"{name} must be .* rename it"):
        app(**{name: "the user's"})
    exec(f"def other({name}='text'): return {name}", namespace)
    with pytest.raises(ConfigurationError, match=rf"{name} must be .* rename it"):
        python_app(namespace["other"])


def test_a_declared_keyword_that_is_required_may_not_be_missing(kernel: RecordingKernel) -> None:
    @python_app
    def function(label: str) -> None: ...

    with pytest.raises(TypeError, match="missing 1 required argument: 'label'"):
        function()


def test_all_other_parameters_may_have_any_name_too(kernel: RecordingKernel) -> None:
    @python_app
    def function(self: int, args: int, kwargs: int, func: int, key: int) -> None: ...

    given = {"self": 1, "args": 2, "kwargs": 3, "func": 4, "key": 5}
    function(**given)
    assert kernel.last.kwargs == given


def test_options_set_what_is_flows_even_then(kernel: RecordingKernel) -> None:
    @python_app
    def function(label: int) -> None: ...

    function.options(walltime=7, label="L", priority=3, environment={"B": "2", "A": "1"})(label=4)
    seen = kernel.last
    assert seen.kwargs == {"label": 4}
    assert (seen.options.spec.walltime_s, seen.options.label, seen.options.spec.priority) == (7.0, "L", 3)
    assert seen.options.spec.environment == (("A", "1"), ("B", "2"))


def test_options_leave_the_app_itself_as_it_is(kernel: RecordingKernel) -> None:
    importable.options(walltime=1)
    importable(1)
    assert kernel.last.options is NO_OPTIONS


def test_options_add_up_and_the_call_comes_first(kernel: RecordingKernel) -> None:
    app = importable.options(walltime=1, resource_specification={"cores": 2}).options(executors="gpu")
    app(1, walltime=9)
    options = kernel.last.options
    assert (options.spec.walltime_s, options.spec.resources.cores, options.executors) == (9.0, 2.0, ("gpu",))


def test_the_decorators_walltime_holds_for_each_call(kernel: RecordingKernel) -> None:
    @python_app(walltime=5)
    def function() -> None: ...

    function()
    assert kernel.last.options.spec.walltime_s == 5.0
    function(walltime=None)
    assert kernel.last.options.spec.walltime_s is None


# -- inputs and outputs


def test_outputs_become_files_for_function_and_kernel(kernel: RecordingKernel) -> None:
    @bash_app
    def function(outputs: list[Any] = []) -> str:
        return ""

    function(outputs=["a.txt", Path("b.txt"), File("http://host/c")])
    assert kernel.last.options.outputs == (File("a.txt"), File("b.txt"), File("http://host/c"))
    assert kernel.last.kwargs["outputs"] == list(kernel.last.options.outputs)


def test_defaults_of_the_function_count_as_if_passed(kernel: RecordingKernel) -> None:
    @bash_app
    def function(inputs: Any = ["in"], outputs: Any = ["out"], stdout: str = "o", stderr: Any = AUTO_LOGNAME) -> str:
        return ""

    function()
    options = kernel.last.options
    assert (options.outputs, options.stdout, options.stderr) == ((File("out"),), "o", AUTO_LOGNAME)
    assert kernel.last.kwargs["inputs"] == ["in"]


def test_special_parameters_may_be_passed_by_position(kernel: RecordingKernel) -> None:
    @bash_app
    def function(x: int, outputs: Any = [], stdout: Any = None) -> str:
        return ""

    function(1, ["out"], "log")
    assert kernel.last.args == (1,)
    assert (kernel.last.options.outputs, kernel.last.options.stdout) == ((File("out"),), "log")


def test_a_special_parameter_before_others_stays_where_it_is(kernel: RecordingKernel) -> None:
    @python_app
    def function(inputs: Any, x: int) -> None: ...

    function([1, 2], 5)
    assert (kernel.last.args, kernel.last.kwargs) == (([1, 2], 5), {})


def test_inputs_are_copied_so_that_appending_the_result_makes_no_circle(kernel: RecordingKernel) -> None:
    @python_app
    def function(inputs: Any = []) -> None: ...

    futures: list[Any] = []
    futures.append(function(inputs=futures))
    assert kernel.last.kwargs["inputs"] == []


def test_inputs_reach_the_kernel_also_if_the_function_does_not_take_them(kernel: RecordingKernel) -> None:
    importable(1, inputs=["later"])
    assert kernel.last.kwargs == {"inputs": ["later"]}
    assert kernel.last.app.takes == frozenset()


def test_inputs_alone_leave_the_options_of_the_app_as_they_are(kernel: RecordingKernel) -> None:
    @python_app
    def function(x: int, inputs: Any = ()) -> None: ...

    given = (1, 2)
    function(0, inputs=given)
    assert kernel.last.kwargs == {"inputs": [1, 2]}
    assert kernel.last.options is NO_OPTIONS
    function(0, given)
    assert (kernel.last.args, kernel.last.kwargs, kernel.last.options) == ((0,), {"inputs": [1, 2]}, NO_OPTIONS)
    function.options(outputs=["out"])(0, inputs=given)
    assert kernel.last.options.outputs == (File("out"),)
    with pytest.raises(ConfigurationError, match="inputs must be a list"):
        function(0, inputs="x.txt")


def test_a_bash_app_that_takes_everything_gets_streams_beside_its_inputs(kernel: RecordingKernel) -> None:
    @bash_app
    def function(**kwargs: Any) -> str:
        return "true"

    function(inputs=[1])
    assert kernel.last.kwargs == {"inputs": [1], "stdout": None, "stderr": None}


@pytest.mark.parametrize("keywords", [{"inputs": None}, {"inputs": []}, {"outputs": []}, {"stdout": None}])
def test_empty_special_keywords_are_as_if_not_passed(kernel: RecordingKernel, keywords: dict[str, Any]) -> None:
    importable(1, **keywords)
    assert (kernel.last.args, kernel.last.kwargs) == ((1,), {})


def test_a_function_with_any_keywords_takes_the_shared_ones(kernel: RecordingKernel) -> None:
    @python_app
    def function(**kwargs: Any) -> None: ...

    function(inputs=[1], walltime=2, mine=3)
    assert kernel.last.kwargs == {"inputs": [1], "mine": 3}
    assert "inputs" in function.definition.takes


@pytest.mark.parametrize(
    "keywords", [{"outputs": "x.txt"}, {"outputs": [5]}, {"inputs": "x.txt"}, {"label": 5}, {"walltime": -1}]
)
def test_impossible_special_keywords_name_the_app(kernel: RecordingKernel, keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="'importable'"):
        importable(1, **keywords)


# -- streams


@pytest.mark.parametrize("stream", ["log", Path("log"), ("log", "w"), File("http://host/log"), AUTO_LOGNAME])
def test_bash_apps_take_streams_of_all_kinds(kernel: RecordingKernel, stream: Any) -> None:
    @bash_app
    def function() -> str:
        return ""

    function(stdout=stream)
    assert kernel.last.options.stdout == stream
    assert kernel.last.kwargs == {}


@pytest.mark.parametrize("stream", [5, ("log",), ("log", "r"), ("log", "aw"), (5, "w"), "", ["log", "w"]])
def test_a_bad_stream_is_a_bad_std_stream_file(kernel: RecordingKernel, stream: Any) -> None:
    @bash_app
    def function() -> str:
        return ""

    with pytest.raises(BadStdStreamFile, match=r"'function'.*stderr"):
        function(stderr=stream)


@pytest.mark.parametrize("slip", ["~/log", ("~/log", "w"), Path("~/log"), r"C:\log"])
def test_a_stream_that_would_get_an_odd_name_is_refused(slip: Any) -> None:
    with pytest.raises(BadStdStreamFile, match=r"stdout='.*log'.*for that very name"):
        checked_stream(slip, "stdout", "app")


def test_streams_of_python_apps_are_refused_unless_the_function_takes_them(kernel: RecordingKernel) -> None:
    with pytest.raises(BadStdStreamFile, match="bash apps only"):
        importable(1, stdout="log")

    @python_app
    def writes(stdout: Any) -> None: ...

    writes(stdout="log")
    assert (kernel.last.kwargs, kernel.last.options.stdout) == ({"stdout": "log"}, "log")
    writes(stdout=True)
    assert (kernel.last.kwargs, kernel.last.options.stdout) == ({"stdout": True}, None)


# -- travelling


def test_an_importable_app_travels_by_name() -> None:
    assert pickle.loads(pickle.dumps(importable)) is importable


def test_an_app_of_the_main_script_travels_without_its_kernel() -> None:
    def function(x: int) -> int:
        return x + 1

    function.__module__ = "__main__"
    app = python_app(data_flow_kernel=RecordingKernel())(function)
    copy = pickle.loads(cloudpickle.dumps(app))
    assert copy.__wrapped__(1) == 2
    assert copy._kernel is None


def test_an_app_that_names_itself_travels() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "python_app": python_app}
    exec("@python_app\ndef again(n):\n    return again if n else 0\n", namespace)
    copy = pickle.loads(cloudpickle.dumps(namespace["again"]))
    assert isinstance(copy.__wrapped__(1), AppBase)


@pytest.mark.parametrize("names", [["typo"], ["y", 5], "y"])
def test_what_is_ignored_for_the_cache_must_be_parameters(names: Any) -> None:
    def app(x: int, yes: int = 0) -> int:
        return x

    with pytest.raises(ConfigurationError, match="app 'app': ignore_for_cache"):
        python_app(app, cache=True, ignore_for_cache=names)


def test_any_keyword_may_be_ignored_for_the_cache_where_any_is_taken() -> None:
    def app(*xs: int, **named: int) -> None: ...

    assert "verbose" in python_app(app, ignore_for_cache=["verbose"]).definition.identity.ignore


@pytest.mark.parametrize("walltime", [1e10, float("inf"), float("nan"), 0, -1, True, "60"])
def test_a_walltime_that_no_clock_can_measure_is_refused_at_the_call(walltime: Any) -> None:
    @python_app
    def app() -> None: ...

    with pytest.raises(ConfigurationError, match=r"app 'app': walltime must be .* leave it out, or pass None"):
        app.options(walltime=walltime)
    with pytest.raises(ConfigurationError, match="walltime"):
        python_app(walltime=walltime)(lambda: None)
