"""Turns sympy's expressions of sizes into rows of plain data, and back without running code."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import sympy
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import BooleanFunction
from torch.utils._sympy import functions
from torch.utils._sympy.numbers import int_oo

from ..errors import ArtifactError
from .typed_json import typed

__all__ = ["Expressions", "content"]

_CONSTANTS: dict[str, Any] = {
    "true": sympy.true,
    "false": sympy.false,
    "int_oo": int_oo,
    "-int_oo": -int_oo,
    "oo": sympy.oo,
    "-oo": -sympy.oo,
}
_SYMPY = (
    *(sympy.Add, sympy.Mul, sympy.Pow, sympy.Mod, sympy.Max, sympy.Min, sympy.Abs),
    *(sympy.floor, sympy.ceiling, sympy.Piecewise, ExprCondPair),
    *(sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge, sympy.And, sympy.Or, sympy.Not),
)
_OF_TORCH = [
    cls
    for cls in vars(functions).values()
    if inspect.isclass(cls)
    and issubclass(cls, sympy.Basic)
    and cls.__module__ == functions.__name__
]
_CLASSES: dict[str, Any] = {
    f"{cls.__module__}.{cls.__name__}": cls for cls in (*_SYMPY, *_OF_TORCH)
}
"""The classes that an expression may consist of: sympy's arithmetic, and torch's functions."""
_UNEVALUATED = (sympy.Add, sympy.Mul, sympy.Pow, sympy.Function, Relational, BooleanFunction)
_MIN_MAX = (functions.Max, functions.Min)
_POWERS = frozenset(
    (
        *("Pow", "PowByNatural", "FloatPow", "LShift", "RoundDecimal"),
        *("OpaqueUnaryFn_exp", "OpaqueUnaryFn_sinh", "OpaqueUnaryFn_cosh"),
    )
)
"""The classes whose value has as many digits as their last argument says."""
_SYMBOL = re.compile(r"[a-z]+[0-9]+")
"""The names that torch gives to symbols. Others are refused, since names become source code."""
_ASSUMPTIONS = frozenset(
    (
        *("integer", "positive", "nonnegative", "negative", "real", "finite"),
        *("nonzero",),
    )
)
_MOST_ROWS, _MOST_PARTS, _MOST_PARTS_TOGETHER = 100_000, 5_000, 500_000
_MOST_DEPTH, _MOST_BITS, _MOST_POWER = 150, 8192, 64


def content(expr: Any, rows: Sequence[int]) -> list[Any]:
    """Return the row of an expression.

    Args:
        rows: the numbers of the rows of its arguments.

    Raises:
        ArtifactError: the expression is of an unknown kind.
    """
    for name, constant in _CONSTANTS.items():
        if expr is constant:
            return ["constant", name]
    if isinstance(expr, sympy.Symbol):
        return ["symbol", expr.name, dict(sorted(expr._assumptions_orig.items()))]
    if isinstance(expr, sympy.Integer):
        return ["integer", int(expr)]
    if isinstance(expr, sympy.Rational):
        return ["rational", int(expr.p), int(expr.q)]
    if isinstance(expr, sympy.Float):
        return ["float", float(expr).hex()]
    name = f"{type(expr).__module__}.{type(expr).__name__}"
    if _CLASSES.get(name) is not type(expr):
        raise ArtifactError(f"a size is computed by {name}, which no artifact can hold")
    return ["call", name, list(rows)]


class _Extent(NamedTuple):
    """The size of an expression when it is written out, and a bound on the bits of its value."""

    parts: int
    depth: int
    bits: int


class Expressions:
    """Turns a table of rows into expressions; the rows of arguments come before those of calls.

    symbols: all symbols of the table.
    """

    def __init__(self, table: Sequence[Any]) -> None:
        """Read all rows.

        Raises:
            ArtifactError: a row is no expression, or one that is too large.
        """
        self._made: list[Any] = []
        self._extents: list[_Extent] = []
        self.symbols: set[sympy.Symbol] = set()
        self._parts = 0
        if len(table) > _MOST_ROWS:
            raise ArtifactError(f"the sizes have {len(table)} expressions")
        for row in table:
            kind, *parts = typed(row, list[Any], "an expression") or [None]
            self._made.append(self._read(kind, parts))

    def at(self, row: int) -> Any:
        """Return the expression of a row.

        Raises:
            ArtifactError: there is no such row yet.
        """
        if not 0 <= row < len(self._made):
            raise ArtifactError(f"there is no expression {row}")
        return self._made[row]

    def _note(self, extent: _Extent) -> None:
        """Keep the extent of the next row, or refuse it if it is too large."""
        # A small table may be a large tree, since a row may name an earlier one twice.
        self._parts += extent.parts
        most = _Extent(_MOST_PARTS, _MOST_DEPTH, _MOST_BITS)
        if self._parts > _MOST_PARTS_TOGETHER or any(
            value > limit for value, limit in zip(extent, most, strict=True)
        ):
            raise ArtifactError(f"a size is too large an expression: {extent}")
        self._extents.append(extent)

    def _read(self, kind: Any, parts: list[Any]) -> Any:
        if kind == "call":
            name, rows = typed(parts, tuple[str, list[int]], "a call")
            return self._call(name, rows)
        self._note(_Extent(1, 1, 64))
        if kind == "integer":
            return sympy.Integer(typed(parts, tuple[int], "an integer")[0])
        if kind == "rational":
            numerator, denominator = typed(parts, tuple[int, int], "a rational")
            if denominator < 1:
                raise ArtifactError(f"a size has the denominator {denominator}")
            return sympy.Rational(numerator, denominator)
        if kind == "float":
            return _float(typed(parts, tuple[str], "a float")[0])
        if kind == "constant":
            name = typed(parts, tuple[str], "a constant")[0]
            if name not in _CONSTANTS:
                raise ArtifactError(f"a size has the constant {name!r:.40}")
            return _CONSTANTS[name]
        if kind == "symbol":
            return self._symbol(*typed(parts, tuple[str, dict[str, bool]], "a symbol"))
        raise ArtifactError(f"an expression is a {kind!r:.40}, which is not known")

    def _symbol(self, name: str, assumptions: dict[str, bool]) -> sympy.Symbol:
        if not _SYMBOL.fullmatch(name) or assumptions.keys() - _ASSUMPTIONS:
            raise ArtifactError(f"a size has the symbol {name!r:.40} of {assumptions!r:.80}")
        if name in map(str, self.symbols):
            raise ArtifactError(f"two symbols have the name {name}")
        symbol = sympy.Symbol(name, **assumptions)
        self.symbols.add(symbol)
        return symbol

    def _call(self, name: str, rows: list[int]) -> Any:
        if name not in _CLASSES:
            raise ArtifactError(f"a size is computed by {name:.80}, which is not known")
        cls, args = _CLASSES[name], [self.at(row) for row in rows]
        extents = [self._extents[row] for row in rows]
        bits = [extent.bits for extent in extents]
        most = sum(bits) if cls is sympy.Mul else max(bits, default=0) + len(bits)
        if cls.__name__ in _POWERS:
            power = args[-1] if args else None
            if not isinstance(power, (sympy.Rational, sympy.Float)) or abs(power) > _MOST_POWER:
                raise ArtifactError(f"a size is a {cls.__name__} that may be very large")
            most = (max(bits) + _MOST_POWER) * max(1, math.ceil(abs(power)))
        parts = 1 + sum(extent.parts for extent in extents)
        self._note(_Extent(parts, 1 + max((one.depth for one in extents), default=0), most))
        # The expression was simplified before it was stored, so this slow step is left out.
        if issubclass(cls, _UNEVALUATED) or cls in _MIN_MAX:
            return cls(*args, evaluate=False)
        return cls(*args)


def _float(text: str) -> sympy.Float:
    try:
        value = float.fromhex(text)
    except (ValueError, OverflowError) as error:
        raise ArtifactError(f"a size has the float {text!r:.40}") from error
    if not math.isfinite(value):
        raise ArtifactError(f"a size has the float {text!r:.40}")
    return sympy.Float(value)
