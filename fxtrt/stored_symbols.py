"""Turns the symbolic sizes of a graph into plain data, and back; nothing is evaluated as code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sympy
import torch
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import BooleanFunction
from torch._guards import ShapeGuard, SLoc
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import RuntimeAssert, ShapeEnv, ValueRangesSLoc
from torch.utils._sympy import functions
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges
from torch.utils._traceback import CapturedTraceback

from .errors import ArtifactError

__all__ = ["SymbolReader", "SymbolWriter"]

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
    *(sympy.floor, sympy.ceiling, sympy.sqrt, sympy.Piecewise, ExprCondPair),
    *(sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge, sympy.And, sympy.Or, sympy.Not),
)
_CLASSES: dict[str, Any] = {
    f"{cls.__module__}.{cls.__name__}": cls
    for cls in (*_SYMPY, *vars(functions).values())
    if inspect.isclass(cls) and issubclass(cls, sympy.Basic)
}
"""What an expression may consist of: sympy's arithmetic, and torch's own functions of sizes."""
_UNEVALUATED = (sympy.Add, sympy.Mul, sympy.Pow, sympy.Function, Relational, BooleanFunction)
_MIN_MAX = (functions.Max, functions.Min)
_UNBACKED = re.compile(r"u(\d+)$")
_PLACE = SLoc("fxtrt.load", None)
"""Where restored sizes come from, to torch."""
_KINDS: dict[type[Any], tuple[str, type[Any]]] = {
    torch.SymInt: ("int", int),
    torch.SymFloat: ("float", float),
    torch.SymBool: ("bool", bool),
}


class SymbolWriter:
    """Collects the expressions that a graph's values have, each part of one once.

    table:   a row for each expression; it names the rows of its arguments, which come before it.
    """

    def __init__(self) -> None:
        self.table: list[Any] = []
        self._rows: dict[Any, int] = {}
        self._symbols: dict[sympy.Symbol, None] = {}
        self._environment: ShapeEnv | None = None

    def size(self, value: Any) -> list[Any]:
        """Of a SymInt, SymFloat or SymBool: its kind and its row."""
        environment = value.node.shape_env
        if self._environment not in (None, environment):
            raise ArtifactError("the graph has sizes of two environments")
        self._environment = environment
        return [_KINDS[type(value)][0], self.row(value.node.expr)]

    def row(self, expr: Any) -> int:
        """The number of an expression in `table`.

        Raises:
            ArtifactError: it has a part of a kind that is not known.
        """
        # sympy takes 1 and 1.0, and 1 and true, for equal.
        key = (type(expr), expr)
        if key not in self._rows:
            content = self._content(expr)
            self._rows[key] = len(self.table)
            self.table.append(content)
        return self._rows[key]

    def environment(self) -> dict[str, Any]:
        """What is known of the symbols: ranges, the example's values, relations between them."""
        environment = self._environment
        if environment is None:
            return {"symbols": [], "guards": [], "asserts": []}
        # Those of symbols that no value of the graph has say nothing about it.
        guards = filter(self._is_known, [environment.replace(g.expr) for g in environment.guards])
        facts = [one for many in environment.deferred_runtime_asserts.values() for one in many]
        asserts = filter(self._is_known, {environment.replace(fact.expr) for fact in facts})
        return {
            "guards": list(map(self.row, guards)),
            # Their order says nothing, and some versions of torch change it.
            "asserts": list(map(self.row, sorted(asserts, key=str))),
            "symbols": [self._symbol(symbol, environment) for symbol in list(self._symbols)],
        }

    def _is_known(self, expr: Any) -> bool:
        return set(expr.free_symbols) <= set(self._symbols)

    def _symbol(self, symbol: sympy.Symbol, environment: ShapeEnv) -> dict[str, Any]:
        known = environment.var_to_range[symbol]
        value = environment.backed_var_to_val.get(symbol)
        return {
            "row": self.row(symbol),
            "low": self.row(known.lower),
            "high": self.row(known.upper),
            "value": None if value is None else int(value),
        }

    def _content(self, expr: Any) -> list[Any]:
        for name, constant in _CONSTANTS.items():
            if expr is constant:
                return ["constant", name]
        if isinstance(expr, sympy.Symbol):
            self._symbols[expr] = None
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
        return ["call", name, [self.row(arg) for arg in expr.args]]


class SymbolReader:
    """Makes the expressions of a table again, and sizes of them in a ShapeEnv of their own."""

    def __init__(self, table: Iterable[Any], environment: Mapping[str, Any]) -> None:
        """
        Raises:
            ArtifactError: there is something else in it than expressions.
        """
        self._expressions: list[Any] = []
        for content in table:
            self._expressions.append(self._expression(*content))
        self._known = environment
        self._sizes: dict[tuple[str, int], Any] = {}
        self._environment = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self._environment, allow_non_fake_inputs=True)
        self._use_up_names()
        for symbol in environment["symbols"]:
            self._add(symbol)

    def size(self, kind: str, row: int) -> Any:
        """What `SymbolWriter.size` was given, in this environment."""
        if (kind, row) not in self._sizes:
            self._sizes[kind, row] = self._make(kind, row)
        return self._sizes[kind, row]

    def _make(self, kind: str, row: int) -> Any:
        expr, environment = self._expressions[row], self._environment
        if kind == "bool":
            return environment.create_symboolnode(expr)
        make = {"int": environment.create_symintnode, "float": environment.create_symfloatnode}
        return make[kind](expr, hint=self._hint(expr, dict(_KINDS.values())[kind]))

    def finish(self) -> None:
        """Set what is known of the sizes, in place of what making the values has added."""
        environment = self._environment
        environment.replacements.clear()
        for symbol in self._known["symbols"]:
            environment.var_to_range[self._expressions[symbol["row"]]] = self._range(symbol)
        for expr in self._rows("asserts"):
            fact = RuntimeAssert(expr, "", CapturedTraceback.extract())  # type: ignore[no-untyped-call]  # torch's
            for variable in sorted(expr.free_symbols, key=str)[:1]:
                environment.deferred_runtime_asserts.setdefault(variable, []).append(fact)
        environment.guards[:] = [ShapeGuard(e, _PLACE, False) for e in self._rows("guards")]
        environment._update_version_counter()

    def _rows(self, name: str) -> Iterator[Any]:
        return (self._expressions[row] for row in self._known[name])

    def _range(self, symbol: Mapping[str, Any]) -> ValueRanges[Any]:
        return ValueRanges(*(self._expressions[symbol[name]] for name in ("low", "high")))

    def _add(self, symbol: Mapping[str, Any]) -> None:
        environment, variable = self._environment, self._expressions[symbol["row"]]
        environment.var_to_range[variable] = self._range(symbol)
        # Whoever narrows a range writes down where.
        environment.var_to_range_sloc[variable] = ValueRangesSLoc(_PLACE, _PLACE)
        if symbol["value"] is not None:
            environment.backed_var_to_val[variable] = sympy.Integer(symbol["value"])

    def _use_up_names(self) -> None:
        """Let the symbols that passes make be new ones."""
        names = [self._expressions[symbol["row"]].name for symbol in self._known["symbols"]]
        numbers = [int(found[1]) for name in names if (found := _UNBACKED.match(name))]
        self._environment.unbacked_symint_counter = max(numbers, default=-1) + 1

    def _hint(self, expr: Any, kind: type[Any]) -> Any:
        """The example's value; None where a symbol depends on data."""
        values = self._environment.backed_var_to_val
        if not expr.free_symbols <= values.keys():
            return None
        return kind(expr.xreplace({symbol: values[symbol] for symbol in expr.free_symbols}))

    def _expression(self, kind: str, *content: Any) -> Any:
        if kind == "constant":
            return _CONSTANTS[content[0]]
        if kind == "symbol":
            name, assumptions = content
            return sympy.Symbol(name, **assumptions)
        if kind == "integer":
            return sympy.Integer(content[0])
        if kind == "rational":
            return sympy.Rational(*content)
        if kind == "float":
            return sympy.Float(float.fromhex(content[0]))
        name, rows = content
        if kind != "call" or name not in _CLASSES:
            raise ArtifactError(f"an expression is a {kind} of {name}, which is not known")
        cls, args = _CLASSES[name], [self._expressions[row] for row in rows]
        # As it was: sympy has simplified it before, which takes most of the time.
        if issubclass(cls, _UNEVALUATED) or cls in _MIN_MAX:
            return cls(*args, evaluate=False)
        return cls(*args)
