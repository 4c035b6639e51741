"""Convert symbolic sizes to the layers that compute them from the network's inputs."""

from __future__ import annotations

from collections.abc import Sequence, Set
from fractions import Fraction
from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import (
    CeilToInt,
    CleanDiv,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    Identity,
    IntTrueDiv,
    Max,
    Min,
    Mod,
    PythonMod,
    ToFloat,
    TruncToInt,
)

from ..engines.network import Network
from ..errors import ConversionError
from ..graph.size_relations import linear
from ..graph.sizes import (
    Size,
    expression,
    is_static,
)

__all__ = ["ShapeLayers", "has_layers"]

_FOLDS: dict[type, str] = {
    sympy.Add: "SUM",
    sympy.Mul: "PROD",
    Max: "MAX",
    Min: "MIN",
    sympy.Max: "MAX",
    sympy.Min: "MIN",
}
_LARGEST_TERM = 1024
"""A float factor whose fraction has no larger terms has exact products with sizes."""


class ShapeLayers:
    """The sizes of one network's inputs, and arithmetic on them, as layers of that network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sources: list[tuple[sympy.Expr, Any, int]] = []
        self._values: dict[sympy.Expr, Any] = {}

    def add_source(self, tensor: Any, shape: Sequence[Size]) -> None:
        """Let the sizes in `shape` be read off `tensor`, an input of the network."""
        for axis, size in enumerate(shape):
            if not is_static(size):
                assert isinstance(size, torch.SymInt)
                self._sources.append((size.node.expr, tensor, axis))

    def size(self, size: Size) -> Any:
        """Return a shape tensor of shape (1,) that holds `size`.

        Raises:
            ConversionError: no input of the network has a dimension that determines it.
        """
        return self._evaluate(expression(size))

    def sizes(self, sizes: Sequence[Size]) -> Any:
        """Return a one-dimensional shape tensor of all `sizes`; a run of known ones is one
        constant."""
        parts: list[Any] = []
        known: list[int] = []
        for size in sizes:
            if is_static(size):
                known.append(int(size))
                continue
            if known:
                parts.append(self._constant(known))
                known = []
            parts.append(self.size(size))
        if known:
            parts.append(self._constant(known))
        if len(parts) == 1:
            return parts[0]
        layer = self._network.definition.add_concatenation(parts)
        layer.axis = 0
        return layer.get_output(0)

    def _evaluate(self, expr: sympy.Expr) -> Any:
        if expr not in self._values:
            self._values[expr] = self._emit(expr)
        return self._values[expr]

    def _emit(self, expr: sympy.Expr) -> Any:
        for source, tensor, axis in self._sources:
            if source == expr:
                return self._read(tensor, axis)
        if expr.is_Integer:
            return self._constant([int(expr)])
        if (solved := self._solve(expr)) is not None:
            return solved
        if expr.is_Symbol:
            raise ConversionError(f"the size {expr} is not the size of any input of the cluster")
        if isinstance(expr, Identity):
            return self._evaluate(expr.args[0])
        if isinstance(expr, (FloorToInt, CeilToInt, TruncToInt)):
            return self._evaluate(_whole(expr))
        operands = [self._evaluate(arg) for arg in expr.args]
        if operation := _FOLDS.get(expr.func):
            return self._combine(operation, operands)
        if isinstance(expr, (FloorDiv, CleanDiv)):
            return self._elementwise("FLOOR_DIV", *operands)
        if isinstance(expr, (Mod, PythonMod)):
            quotient = self._elementwise("FLOOR_DIV", *operands)
            whole = self._elementwise("PROD", quotient, operands[1])
            return self._elementwise("SUB", operands[0], whole)
        if isinstance(expr, sympy.Pow) and expr.exp.is_Integer and int(expr.exp) > 0:
            return self._combine("PROD", [operands[0]] * int(expr.exp))
        raise ConversionError(f"no layers for the size {expr} ({expr.func.__name__})")

    def _combine(self, operation: str, operands: Sequence[Any]) -> Any:
        """Combine two or more operands from left to right."""
        result, *rest = operands
        for operand in rest:
            result = self._elementwise(operation, result, operand)
        return result

    def _solve(self, expr: sympy.Expr) -> Any:
        """Find `expr` in an input whose size is a multiple of it plus a constant (32*s0 + 1)."""
        for source, tensor, axis in self._sources:
            term, factor, offset = linear(source) or (None, 1, 0)
            if term == expr:
                size, shift = self._read(tensor, axis), self._constant([offset])
                shifted = self._elementwise("SUB", size, shift)
                return self._elementwise("FLOOR_DIV", shifted, self._constant([factor]))
        return None

    def _read(self, tensor: Any, axis: int) -> Any:
        net = self._network.definition
        shape = net.add_shape(tensor).get_output(0)
        return net.add_slice(shape, (axis,), (1,), (1,)).get_output(0)

    def _constant(self, values: list[int]) -> Any:
        dtype = self._network.features.shape_dtype
        array = torch.tensor(values, dtype=dtype).numpy()
        return self._network.definition.add_constant(array.shape, array).get_output(0)

    def _elementwise(self, operation: str, a: Any, b: Any) -> Any:
        op = getattr(self._network.trt.ElementWiseOperation, operation)
        return self._network.definition.add_elementwise(a, b, op).get_output(0)


def has_layers(expr: sympy.Expr, known: Set[sympy.Expr]) -> bool:
    """Return whether layers can compute `expr` from what is `known`."""
    if expr in known or expr.is_Integer:
        return True
    if isinstance(expr, (FloorToInt, CeilToInt, TruncToInt)):
        try:
            return has_layers(_whole(expr), known)
        except ConversionError:
            return False
    if isinstance(expr, sympy.Pow):
        return bool(expr.exp.is_Integer and expr.exp > 0) and has_layers(expr.base, known)
    has_layer = isinstance(expr, (*_FOLDS, Identity, FloorDiv, CleanDiv, Mod, PythonMod))
    return has_layer and all(has_layers(part, known) for part in expr.args)


def _whole(expr: sympy.Expr) -> sympy.Expr:
    """Write a rounded quotient of sizes, like ceil(s0 / 3) or floor(0.5 * s0), in integers.

    Raises:
        ConversionError: floats would round it otherwise than integers, or it is cut towards 0 and
            may be negative.
    """
    parts = _quotient(expr.args[0])
    if parts is None or (isinstance(expr, TruncToInt) and not parts[0].is_nonnegative):
        raise ConversionError(f"no layers for the size {expr}: it is rounded from floats")
    numerator, denominator = parts
    if isinstance(expr, CeilToInt):
        numerator += denominator - 1
    return FloorDiv(numerator, denominator)


def _quotient(expr: sympy.Expr) -> tuple[sympy.Expr, sympy.Integer] | None:
    """Return numerator and denominator of a float computed from sizes, or None for other floats."""
    if isinstance(expr, ToFloat):
        return expr.args[0], sympy.Integer(1)
    if isinstance(expr, IntTrueDiv) and expr.args[1].is_Integer and expr.args[1] > 0:
        return expr.args[0], expr.args[1]
    if isinstance(expr, FloatTrueDiv) and expr.args[1].is_Float:
        inner, divisor = _quotient(expr.args[0]), Fraction(float(expr.args[1]))
        if inner and divisor.denominator == 1 and 0 < divisor <= _LARGEST_TERM:
            return inner[0], inner[1] * divisor.numerator
    shift, rest = expr.as_coeff_Add()
    if shift.is_Float and float(shift).is_integer():
        inner = _quotient(rest)
        return None if inner is None or inner[1] != 1 else (inner[0] + int(shift), inner[1])
    if isinstance(expr, sympy.Mul) and len(expr.args) == 2 and expr.args[0].is_Float:
        factor = Fraction(float(expr.args[0]))
        inner = _quotient(expr.args[1])
        terms = (factor.numerator, factor.denominator)
        if inner and all(0 < term <= _LARGEST_TERM for term in terms):
            return inner[0] * factor.numerator, inner[1] * factor.denominator
    return None
