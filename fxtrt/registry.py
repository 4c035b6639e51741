"""Register converters by ATen overload, after checking them against the overload's schema."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from .errors import RegistrationError

__all__ = [
    "Converter",
    "Rejection",
    "arguments_of",
    "bind",
    "converts",
    "explain",
    "explanation",
    "is_view",
    "parameter_names",
    "registered",
]

Check = Callable[..., "str | None"]

_CONTEXT_PARAMETERS = frozenset({"node", "features"})
"""The parameters of a check that are not arguments of the operator."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a node stays in PyTorch.

    code:   a short stable word, such as "no_converter", "check", "dtype" or "too_small".
    detail: a sentence for people, with the value that decided.
    """

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Converter:
    """How one ATen overload becomes TensorRT layers.

    constants: arguments that arrive as torch.Tensor if they are weights of the model; every other
               tensor argument always arrives as an ITensor.
    computes:  whether the operator counts towards a cluster's minimum size; views, casts and
               copies do not.
    opt_in:    why the operator stays in PyTorch unless `whitelist` names it; "" if it does not.
    selects:   whether the size of the result depends on data. It must be 0 only where an input is
               empty, and at most the first size of the first tensor. The result has one dimension.
    parameters: the schema's argument names, each with the parameter that takes it (`self`: `x`).
    dtypes:    the dtypes that its tensors may have besides those of all converters.
    """

    target: OpOverload
    build: Callable[..., Any]
    checks: tuple[Check, ...] = ()
    constants: frozenset[str] = frozenset()
    computes: bool = True
    opt_in: str = ""
    selects: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    dtypes: frozenset[torch.dtype] = frozenset()

    def check(self, arguments: Mapping[str, Any], **context: Any) -> str | None:
        """Return the reason to decline these arguments (FakeTensors for tensors), or None."""
        available = {self.parameters[name]: value for name, value in arguments.items()} | context
        for check in self.checks:
            named = parameter_names(check)
            reason = check(**{name: available[name] for name in named if name in available})
            if reason is not None:
                return reason
        return None


_CONVERTERS: dict[OpOverload, Converter] = {}
_DEFERRED: dict[str, tuple[str, Callable[[OpOverload], None]]] = {}
"""For the names of operators that do not exist yet: the package that defines the operator, and a
function that registers its converter."""
_EXPLANATIONS: dict[str, str] = {}
"""Why operators have no converter, by their names."""


def converts(
    *targets: OpOverload | str,
    check: Check | Iterable[Check] = (),
    constants: Iterable[str] = (),
    computes: bool = True,
    opt_in: str = "",
    selects: bool = False,
    dtypes: Iterable[torch.dtype] = (),
    package: str = "",
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the converter of `targets`.

    A target is an overload, or a name such as "torchvision::nms". A named target is registered once
    `package` is imported, which fxtrt leaves to the model; that is the package of its namespace by
    default.

    The function takes the conversion context, then schema arguments by name (`self` is `x`).
    `check` is one function or several; each names the arguments that it looks at, and may name
    `node` (the fx node) and `features` (what the engine's TensorRT has). It returns the reason
    for declining, or None. Together they must name every argument of each target's schema.
    `constants`, `computes`, `opt_in`, `selects` and `dtypes` are as in `Converter`.

    The targets' schemas may differ. Some may lack an argument whose parameter has a default;
    `renamed` maps an argument to the parameter that takes it, such as {"mat2": "other"}.

    Raises:
        RegistrationError: an argument is missing or unknown, or the target is taken.
    """
    checks = (check,) if callable(check) else tuple(check)
    constants = frozenset(constants)
    names = {"self": "x", **renamed}

    def add(build: Callable[..., Any], target: OpOverload) -> None:
        converter = Converter(
            target,
            build,
            checks,
            constants,
            computes and not is_view(target),
            opt_in,
            selects,
            {a.name: names.get(a.name, a.name) for a in target._schema.arguments},
            frozenset(dtypes),
        )
        _register(converter)

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        _check_optional_names(build, checks, constants, names, targets)
        for target in targets:
            if isinstance(target, str):
                _DEFERRED[target] = package or target.partition("::")[0], partial(add, build)
            else:
                add(build, target)
        return build

    return register


def _register(converter: Converter) -> None:
    target = converter.target
    if target in _CONVERTERS:
        raise RegistrationError(
            f"{target} already has a converter, {_CONVERTERS[target].build.__qualname__}"
        )
    _check_schema(converter)
    _CONVERTERS[target] = converter


def explain(name: str, why: str) -> None:
    """Record why "package::operator" has no converter; the report shows it."""
    _EXPLANATIONS[name] = why


def explanation(target: OpOverload) -> str:
    """Return what `explain` recorded for an operator, or ""."""
    return _EXPLANATIONS.get(target._schema.name, "")


def registered() -> Mapping[OpOverload, Converter]:
    """Return every converter by its target, including those of installed third-party packages."""
    _load_families()
    for name, (package, register) in tuple(_DEFERRED.items()):
        if (target := _overload(name, package)) and _DEFERRED.pop(name, None):
            register(target)
    return MappingProxyType(_CONVERTERS)


def _overload(name: str, package: str) -> OpOverload | None:
    """Return the operator "namespace::name", or None while its package is not imported."""
    namespace, _, operator = name.partition("::")
    if package not in sys.modules:
        return None
    packet = getattr(getattr(torch.ops, namespace), operator, None)
    return None if packet is None else packet.default


def bind(target: OpOverload, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by schema name, with the schema's defaults filled in."""
    values = list(args)
    bound: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if argument.kwarg_only or position >= len(values):
            bound[argument.name] = kwargs.get(argument.name, argument.default_value)
        else:
            bound[argument.name] = values[position]
    return bound


def arguments_of(node: Node) -> dict[str, Any]:
    """Return the arguments of a node that calls an operator, as `bind` does."""
    assert isinstance(node.target, OpOverload)
    return bind(node.target, node.args, node.kwargs)


@cache
def _load_families() -> None:
    package = importlib.import_module("fxtrt.converters")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"fxtrt.converters.{module.name}")
    for entry_point in entry_points(group="fxtrt.converters"):
        entry_point.load()


def is_view(target: OpOverload) -> bool:
    """Return whether the schema declares that the result shares memory with an argument."""
    return any(result.alias_info is not None for result in target._schema.returns)


@cache
def parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters, in order."""
    return tuple(inspect.signature(function).parameters)


@cache
def _needed_names(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that have no default."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty)


def _check_schema(converter: Converter) -> None:
    """Refuse a converter that ignores an argument of its target, or needs one that is missing."""
    schema = set(converter.parameters.values())
    if len(schema) < len(converter.parameters):
        raise RegistrationError(f"two arguments of {converter.target} have one name: {schema}")
    context, *taken = parameter_names(converter.build)
    needed = _needed_names(converter.build) - {context}
    named = set(taken)
    for check in converter.checks:
        needed |= _needed_names(check) - _CONTEXT_PARAMETERS
        named.update(parameter_names(check))
    if unknown := needed - schema:
        raise RegistrationError(
            f"no argument {sorted(unknown)} in the schema of {converter.target}"
        )
    if ignored := schema - named:
        raise RegistrationError(
            f"the converter of {converter.target} ignores {sorted(ignored)}: "
            f"name them in the converter or in a check"
        )


def _check_optional_names(
    build: Callable[..., Any],
    checks: Iterable[Check],
    constants: Iterable[str],
    names: Mapping[str, str],
    targets: Sequence[OpOverload | str],
) -> None:
    """Refuse a name that belongs to no target at all: it may be missing from some only."""
    overloads = [target for target in targets if isinstance(target, OpOverload)]
    if len(overloads) < len(targets):
        return  # the schema of an operator that is given by name is not known yet
    arguments = {argument.name for target in overloads for argument in target._schema.arguments}
    parameters = {names.get(argument, argument) for argument in arguments}
    taken = set(parameter_names(build)[1:])
    for check in checks:
        taken.update(set(parameter_names(check)) - _CONTEXT_PARAMETERS)
    unknown = ((taken | set(constants)) - parameters) | (names.keys() - {"self"} - arguments)
    if unknown:
        schemas = ", ".join(str(target) for target in targets)
        raise RegistrationError(f"no argument {sorted(unknown)} in the schema of {schemas}")
