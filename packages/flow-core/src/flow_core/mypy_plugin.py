"""A plug-in for mypy that checks calls of apps. Users name it in their settings:

    [tool.mypy]
    plugins = ["flow_core.mypy_plugin"]

The type system has no words for "the parameters of this function, each or a future of it, and seven keywords more", so
without the plug-in an app takes any arguments. With it a call is checked against the function's own signature, where
each argument may be a future of its type (anything with ``result()``), and the keywords that every app takes are known.
Parts of results, ``future.name`` and ``future[0]``, get the types of these parts. Imported by mypy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from mypy.checkmember import analyze_member_access
from mypy.nodes import ARG_NAMED_OPT, ARG_STAR2, ArgKind, IntExpr, MemberExpr, StrExpr
from mypy.plugin import AttributeContext, MethodContext, MethodSigContext, Plugin
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    Parameters,
    ProperType,
    TupleType,
    Type,
    TypedDictType,
    TypeOfAny,
    UnionType,
    UnpackType,
    get_proper_type,
)

if TYPE_CHECKING:
    from mypy.checker import TypeChecker
    from mypy.nodes import TypeInfo

_APPS = frozenset(f"flow_core.apps.app.{name}" for name in ("AppBase", "PythonApp", "MpiApp", "BashApp", "JoinApp"))
_FUTURE = "flow_core.futures.derived"
_FILES = ("inputs", "outputs", "stdout", "stderr")
"""Keywords whose values are looked at by Flow before the function has them: futures, Files and plain names."""
_SETTINGS = ("walltime", "label", "resource_specification")
"""Keywords that are the function's own where it has parameters of these names."""


class FlowPlugin(Plugin):
    """Gives mypy the signatures of apps and the types of parts of results."""

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        """Return the hook for calls of apps, which gives their signature."""
        owner, _, name = fullname.rpartition(".")
        return _signature_of_call if name == "__call__" and owner in _APPS else None

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """Return the hook for apps that are methods, and for ``future[key]``."""
        owner, _, name = fullname.rpartition(".")
        if name == "__get__" and owner in _APPS:
            return _bound_app
        return _part_by_key if name == "__getitem__" and owner.startswith("flow_core.futures.") else None

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """Return the hook for ``future.name``, where the future itself has no such attribute."""
        owner, _, _ = fullname.rpartition(".")
        return _part_by_name if owner == f"{_FUTURE}.Derivable" else None


def plugin(version: str) -> type[Plugin]:
    """Return the plug-in; mypy calls this."""
    return FlowPlugin


# -- calls


def _signature_of_call(context: MethodSigContext) -> FunctionLike:
    app = get_proper_type(context.type)
    given = context.default_signature
    parameters = _parameters_of(app)
    return given if parameters is None else _accepting(given, parameters, context, skip=0)


def _bound_app(context: MethodContext) -> Type:
    """Return what an app is that was found on an instance: its first parameter is that instance."""
    parameters = _parameters_of(get_proper_type(context.type))
    bound = get_proper_type(context.default_return_type)
    if parameters is None or not isinstance(bound, CallableType):  # found on the class
        return context.default_return_type
    if not parameters.arg_kinds or not parameters.arg_kinds[0].is_positional():
        return context.default_return_type
    return _accepting(bound, parameters, context, skip=1)


def _parameters_of(app: ProperType) -> Parameters | None:
    if not isinstance(app, Instance):
        return None
    base = next((one for one in app.type.mro if one.fullname == "flow_core.apps.app.AppBase"), None)
    if base is None or not app.args:
        return None
    found = get_proper_type(app.args[0])
    return found if isinstance(found, Parameters) else None


def _accepting(
    signature: CallableType, parameters: Parameters, context: MethodSigContext | MethodContext, skip: int
) -> CallableType:
    """Return a signature that takes those parameters, or futures of them, and the keywords of every app."""
    anything = AnyType(TypeOfAny.special_form)
    kinds: list[ArgKind] = []
    names: list[str | None] = []
    types: list[Type] = []
    own = zip(parameters.arg_kinds[skip:], parameters.arg_names[skip:], parameters.arg_types[skip:], strict=True)
    last: tuple[Type, str | None] | None = None
    for kind, name, of in own:
        # ``**kwargs`` has to come last, after the keywords of every app.
        if kind is ARG_STAR2:
            last = (_or_future(of, context), name)
            continue
        kinds.append(kind)
        names.append(name)
        types.append(anything if name in _FILES else _or_future(of, context))
    keywords: dict[str, Type] = dict.fromkeys(_FILES, anything)
    keywords.update(zip(_SETTINGS, _types_of_settings(context), strict=True))
    for keyword, keyword_type in keywords.items():
        if keyword not in names:
            kinds.append(ARG_NAMED_OPT)
            names.append(keyword)
            types.append(keyword_type)
    if last is not None:
        kinds.append(ARG_STAR2)
        names.append(last[1])
        types.append(last[0])
    return signature.copy_modified(
        arg_types=types,
        arg_kinds=kinds,
        arg_names=names,
        variables=[*signature.variables, *(one for one in parameters.variables if one not in signature.variables)],
    )


def _types_of_settings(context: MethodSigContext | MethodContext) -> list[Type]:
    api = context.api
    number, text = api.named_generic_type("builtins.float", []), api.named_generic_type("builtins.str", [])
    thing = api.named_generic_type("builtins.object", [])
    return [number, text, api.named_generic_type("typing.Mapping", [text, thing])]


def _or_future(of: Type, context: MethodSigContext | MethodContext) -> Type:
    if isinstance(get_proper_type(of), AnyType | UnpackType):
        return of
    results = cast("TypeChecker", context.api).modules[_FUTURE].names["Results"].node  # imported with every app
    return UnionType.make_union([of, Instance(cast("TypeInfo", results), [of])])


# -- parts of results


def _part_by_name(context: AttributeContext) -> Type:
    expression, result = context.context, _result_of(get_proper_type(context.type))
    if result is None or not isinstance(expression, MemberExpr) or expression.name.startswith("_"):
        return context.default_attr_type
    # As mypy looks up any attribute, so that a wrong name is the error it would be on the result itself.
    part = analyze_member_access(
        expression.name, result, expression,
        is_lvalue=False, is_super=False, is_operator=False, original_type=result,
        chk=cast("TypeChecker", context.api),
    )  # fmt: skip
    return _future_of(part, context.default_attr_type)


def _part_by_key(context: MethodContext) -> Type:
    """Return the future of an item of a tuple or TypedDict; of others the overloads say it."""
    result = _result_of(get_proper_type(context.type))
    key = context.args[0][0] if context.args and context.args[0] else None
    if isinstance(result, TupleType) and isinstance(key, IntExpr) and key.value < len(result.items):
        return _future_of(result.items[key.value], context.default_return_type)
    if isinstance(result, TypedDictType) and isinstance(key, StrExpr) and key.value in result.items:
        return _future_of(result.items[key.value], context.default_return_type)
    return context.default_return_type


def _result_of(future: ProperType) -> ProperType | None:
    """Return the type of a future's result, if it is known."""
    if not isinstance(future, Instance) or not future.args:
        return None
    result = get_proper_type(future.args[0])
    return None if isinstance(result, AnyType) else result


def _future_of(part: Type, default: Type) -> Type:
    default = get_proper_type(default)
    return default.copy_modified(args=[part]) if isinstance(default, Instance) and default.args else default
