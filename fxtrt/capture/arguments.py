"""Turns a user's inputs into a call of a model, and later calls into the same form."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..detection import recipe_of
from ..errors import CaptureError
from ..graph.plain import as_plain
from ..graph.specs import Call

__all__ = ["CallForm", "call_of", "is_same", "positional", "signature_of"]

_Kind = inspect.Parameter
_TENSOR = (torch.Tensor, "torch.Tensor", "Tensor")
_HOW_TO = "write a tuple of all positional arguments, and kwargs={...} for those with keywords"


def call_of(
    model: torch.nn.Module, inputs: Any = (), kwargs: Mapping[str, Any] | None = None
) -> Call:
    """Return the call of `model` that a user means by `inputs` and `kwargs`.

    Args:
        inputs: a tuple of positional arguments. A tensor or a list is a single argument. A dict
            holds keyword arguments if its keys are names of parameters of `forward`, and is a
            single argument otherwise.

    Raises:
        CaptureError: the inputs are ambiguous, or `forward` does not take them.
    """
    if isinstance(model, torch._dynamo.OptimizedModule):
        model = model._orig_mod
    name, signature = type(model).__name__, signature_of(model.forward)
    if isinstance(inputs, Mapping) and kwargs is None and _are_keywords(inputs, name, signature):
        call = Call((), dict(inputs))
    else:
        call = Call(_positional_inputs(inputs, name, signature), dict(kwargs or {}))
    _require_fit(model, call)
    if recipe_of(model) is not None:
        call = positional(signature, call)
    args, kwargs = as_plain((tuple(call.args), dict(call.kwargs)))
    return Call(args, kwargs)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a function, or None where Python cannot tell."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def positional(signature: inspect.Signature | None, call: Call) -> Call:
    """Return the same call with as many arguments as possible passed by position."""
    try:
        assert signature is not None
        bound = signature.bind(*call.args, **call.kwargs)
    except (AssertionError, TypeError):
        return call
    return Call(bound.args, bound.kwargs)


def is_same(value: object, other: object) -> bool:
    """Return whether two constants are the same to the bit: 0.0 is not -0.0, and 1 is not True."""
    if value is other:
        return True
    if type(value) is not type(other):
        return False
    if isinstance(value, float) and isinstance(other, float):
        both_nan = math.isnan(value) and math.isnan(other)
        return both_nan or (value == other and _sign(value) == _sign(other))
    if isinstance(value, complex) and isinstance(other, complex):
        return is_same(value.real, other.real) and is_same(value.imag, other.imag)
    if isinstance(value, (np.ndarray, np.generic)):
        other = np.asarray(other)
        form = (value.dtype, value.shape)
        return form == (other.dtype, other.shape) and value.tobytes() == other.tobytes()
    try:
        return bool(value == other)
    except Exception:  # Objects of users decide what equality is, and some have none.
        return False


class CallForm:
    """Records which arguments an example call gave, and which of them by keyword."""

    def __init__(self, function: Callable[..., Any], example: Call) -> None:
        """Record the form of `example`.

        Args:
            function: the function that is called; its signature tells which calls are equivalent.
        """
        self._count, self._keywords = len(example.args), tuple(example.kwargs)
        self._signature = signature_of(function)
        self._places = (*_positional_places(self._signature, self._count), *self._keywords)
        values = _by_place(self._signature, example)
        self._known = None if values is None else set(values)
        self._defaults = {
            place: value for place, value in (values or {}).items() if place not in self._places
        }

    def has(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Return whether a call already has the form of the example."""
        return len(args) == self._count and tuple(kwargs) == self._keywords

    def arrange(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | str:
        """Return an equivalent call in the form of the example, or why there is none."""
        values = _by_place(self._signature, Call(args, kwargs))
        if values is None or values.keys() != self._known:
            return "the arguments have another structure than the example's"
        for place, default in self._defaults.items():
            if not _is_same_tree(values[place], default):
                return f"the argument {place!r} is given, in the example it had its default"
        arranged = [values[place] for place in self._places]
        pairs = zip(self._keywords, arranged[self._count :], strict=True)
        return Call(tuple(arranged[: self._count]), dict(pairs))


def _positional_places(signature: inspect.Signature | None, count: int) -> Iterator[Hashable]:
    """Yield the parameter of each positional argument; those of `*args` are numbered."""
    for parameter in () if signature is None else signature.parameters.values():
        if parameter.kind is _Kind.VAR_POSITIONAL:
            yield from ((parameter.name, i) for i in range(count))
            return
        if count == 0 or parameter.kind in (_Kind.KEYWORD_ONLY, _Kind.VAR_KEYWORD):
            return
        yield parameter.name
        count -= 1


def _by_place(signature: inspect.Signature | None, call: Call) -> dict[Hashable, Any] | None:
    """Return all arguments of a call with its defaults, or None if the signature does not fit."""
    try:
        assert signature is not None
        bound = signature.bind(*call.args, **call.kwargs)
    except (AssertionError, TypeError):
        return None
    bound.apply_defaults()
    values: dict[Hashable, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is _Kind.VAR_POSITIONAL:
            values |= {(name, i): one for i, one in enumerate(value)}
        elif kind is _Kind.VAR_KEYWORD:
            values |= value
        else:
            values[name] = value
    return values


def _is_same_tree(value: object, other: object) -> bool:
    leaves, tree = pytree.tree_flatten(value)
    others, other_tree = pytree.tree_flatten(other)
    return tree == other_tree and all(map(is_same, leaves, others))


def _sign(value: float) -> float:
    return math.copysign(1.0, value)


def _are_keywords(
    inputs: Mapping[Any, Any], name: str, signature: inspect.Signature | None
) -> bool:
    """Return whether a dict holds keyword arguments, rather than being the only argument."""
    parameters = [] if signature is None else list(signature.parameters.values())
    named = {
        p.name for p in parameters if p.kind in (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY)
    }
    takes_any = any(p.kind is _Kind.VAR_KEYWORD for p in parameters)
    known = [key for key in inputs if key in named]
    if known and (takes_any or len(known) == len(inputs)):
        return True
    if inputs and not known and not (takes_any and not named):
        return False
    unknown = ", ".join(repr(key) for key in inputs if key not in named) or "no keys"
    raise CaptureError(
        f"inputs is a dict with {unknown}, which forward of {name} may take as keywords or as one "
        f"argument: write kwargs={{...}} for keywords, and a tuple ({{...}},) for one argument"
    )


def _positional_inputs(
    inputs: Any, name: str, signature: inspect.Signature | None
) -> tuple[Any, ...]:
    if type(inputs) is tuple:
        return inputs
    if isinstance(inputs, torch.Tensor) or (isinstance(inputs, Mapping) and inputs):
        return (inputs,)
    first = next(iter(signature.parameters.values()), None) if signature is not None else None
    if isinstance(inputs, list) and (first is None or first.annotation not in _TENSOR):
        return (inputs,)
    kind = type(inputs).__name__
    raise CaptureError(
        f"inputs must be a tuple of the arguments of {name}, not a {kind}: {_HOW_TO}"
    )


def _require_fit(model: torch.nn.Module, call: Call) -> None:
    """Refuse a call that neither `forward` nor its decorator accepts."""
    signature = signature_of(model.forward)
    if signature is None or _by_place(signature, call) is not None:
        return
    try:
        inspect.signature(model.forward, follow_wrapped=False).bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise CaptureError(
            f"forward of {type(model).__name__} does not take the inputs: {error}; {_HOW_TO}"
        ) from error
