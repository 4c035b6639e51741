"""Turns the symbolic sizes of a graph into plain data, and back without running code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypedDict

import sympy
import torch
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom, BooleanFunction
from torch._guards import ShapeGuard, SLoc
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import RuntimeAssert, ShapeEnv, ValueRangesSLoc
from torch.utils._sympy.value_ranges import ValueRanges
from torch.utils._traceback import CapturedTraceback

from ..errors import ArtifactError
from .expression_data import Expressions, content

__all__ = ["Environment", "SymbolReader", "SymbolWriter"]

_UNBACKED = re.compile(r"u(\d+)$")
_FACTS = (Relational, BooleanFunction, BooleanAtom)
_PLACE = SLoc("fxtrt.load", None)
"""The source that torch records for restored sizes."""
_KINDS: dict[type[Any], tuple[str, type[Any]]] = {
    torch.SymInt: ("int", int),
    torch.SymFloat: ("float", float),
    torch.SymBool: ("bool", bool),
}


class _Symbol(TypedDict):
    """The facts about a symbol: its row, the rows of its bounds, and its example value."""

    row: int
    low: int
    high: int
    value: int | None


class Environment(TypedDict):
    """The facts about all symbols: ranges, example values, and relations between them."""

    symbols: list[_Symbol]
    guards: list[int]
    asserts: list[int]


class SymbolWriter:
    """Collects the expressions of a graph's values, each common part only once.

    table: a row for each expression, which refers to earlier rows for its arguments.
    """

    def __init__(self) -> None:
        self.table: list[Any] = []
        self._rows: dict[Any, int] = {}
        self._symbols: dict[sympy.Symbol, None] = {}
        self._environment: ShapeEnv | None = None

    def size(self, value: Any) -> list[Any]:
        """Return the kind and the row of a SymInt, SymFloat or SymBool."""
        environment = value.node.shape_env
        if self._environment not in (None, environment):
            raise ArtifactError("the graph has sizes of two environments")
        self._environment = environment
        return [_KINDS[type(value)][0], self.row(value.node.expr)]

    def row(self, expr: Any) -> int:
        """Return the number of an expression in `table`, where it is added if need be.

        Raises:
            ArtifactError: a part of it is of an unknown kind.
        """
        # The type counts, since sympy takes 1, 1.0 and true for equal.
        key = (type(expr), expr)
        if key not in self._rows:
            if isinstance(expr, sympy.Symbol):
                self._symbols[expr] = None
            is_call = not expr.is_Atom
            row = content(expr, [self.row(arg) for arg in expr.args] if is_call else ())
            self._rows[key] = len(self.table)
            self.table.append(row)
        return self._rows[key]

    def environment(self) -> Environment:
        """Return the facts that a reader needs besides `table`."""
        environment = self._environment
        if environment is None:
            return {"symbols": [], "guards": [], "asserts": []}
        # Facts about symbols that no value of the graph has are left out.
        guards = filter(self._is_known, [environment.replace(g.expr) for g in environment.guards])
        facts = [one for many in environment.deferred_runtime_asserts.values() for one in many]
        asserts = filter(self._is_known, {environment.replace(fact.expr) for fact in facts})
        return {
            "guards": list(map(self.row, guards)),
            # The order has no meaning, and some versions of torch change it.
            "asserts": list(map(self.row, sorted(asserts, key=str))),
            "symbols": [self._symbol(symbol, environment) for symbol in list(self._symbols)],
        }

    def _is_known(self, expr: Any) -> bool:
        return set(expr.free_symbols) <= set(self._symbols)

    def _symbol(self, symbol: sympy.Symbol, environment: ShapeEnv) -> _Symbol:
        known = environment.var_to_range[symbol]
        value = environment.backed_var_to_val.get(symbol)
        return {
            "row": self.row(symbol),
            "low": self.row(known.lower),
            "high": self.row(known.upper),
            "value": None if value is None else int(value),
        }


class SymbolReader:
    """Turns a table of expressions into symbolic sizes of a new ShapeEnv."""

    def __init__(self, expressions: Expressions, environment: Environment) -> None:
        """Make the symbols, with their ranges and example values.

        Raises:
            ArtifactError: the facts about a symbol are wrong or missing.
        """
        self._expressions, self._known = expressions, environment
        self._sizes: dict[tuple[str, int], Any] = {}
        self._environment = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self._environment, allow_non_fake_inputs=True)
        for symbol in environment["symbols"]:
            if not isinstance(expressions.at(symbol["row"]), sympy.Symbol):
                raise ArtifactError(f"the expression {symbol['row']} is no symbol")
            self._add(symbol)
        if unknown := expressions.symbols - self._environment.var_to_range.keys():
            raise ArtifactError(f"nothing is known of the symbols {sorted(map(str, unknown))}")
        self._use_up_names()

    def size(self, kind: str, row: int) -> Any:
        """Return the size that `SymbolWriter.size` was given, in the new environment."""
        if (kind, row) not in self._sizes:
            self._sizes[kind, row] = self._make(kind, row)
        return self._sizes[kind, row]

    def _make(self, kind: str, row: int) -> Any:
        expr, environment = self._expressions.at(row), self._environment
        kinds = dict(_KINDS.values())
        if kind not in kinds or isinstance(expr, _FACTS) != (kind == "bool"):
            raise ArtifactError(f"a size is no {kind:.40}: {expr}")
        if kind == "bool":
            return environment.create_symboolnode(expr)
        make = {"int": environment.create_symintnode, "float": environment.create_symfloatnode}
        return make[kind](expr, hint=self._hint(expr, kinds[kind]))

    def finish(self) -> None:
        """Set the facts about the sizes, in place of those that making the values has added."""
        environment = self._environment
        environment.replacements.clear()
        for symbol in self._known["symbols"]:
            environment.var_to_range[self._expressions.at(symbol["row"])] = self._range(symbol)
        for expr in self._facts(self._known["asserts"]):
            fact = RuntimeAssert(expr, "", CapturedTraceback.extract())  # type: ignore[no-untyped-call]  # torch's
            for variable in sorted(expr.free_symbols, key=str)[:1]:
                environment.deferred_runtime_asserts.setdefault(variable, []).append(fact)
        environment.guards[:] = [
            ShapeGuard(e, _PLACE, False) for e in self._facts(self._known["guards"])
        ]
        environment._update_version_counter()

    def _facts(self, rows: list[int]) -> Iterator[Any]:
        for row in rows:
            expr = self._expressions.at(row)
            if not isinstance(expr, _FACTS):
                raise ArtifactError(f"a fact about sizes is none: {expr}")
            yield expr

    def _range(self, symbol: _Symbol) -> ValueRanges[Any]:
        ends = [self._expressions.at(row) for row in (symbol["low"], symbol["high"])]
        if any(end.free_symbols for end in ends):
            raise ArtifactError(f"a symbol has the range {ends}")
        return ValueRanges(*ends)

    def _add(self, symbol: _Symbol) -> None:
        environment, variable = self._environment, self._expressions.at(symbol["row"])
        environment.var_to_range[variable] = self._range(symbol)
        # torch updates this record whenever it narrows a range.
        environment.var_to_range_sloc[variable] = ValueRangesSLoc(_PLACE, _PLACE)
        if symbol["value"] is not None:
            environment.backed_var_to_val[variable] = sympy.Integer(symbol["value"])

    def _use_up_names(self) -> None:
        """Let new symbols begin after the stored ones, so that passes make no name twice."""
        names = [self._expressions.at(symbol["row"]).name for symbol in self._known["symbols"]]
        numbers = [int(found[1]) for name in names if (found := _UNBACKED.match(name))]
        self._environment.unbacked_symint_counter = max(numbers, default=-1) + 1

    def _hint(self, expr: Any, kind: type[Any]) -> Any:
        """Return the example's value, or None if a symbol depends on data."""
        values = self._environment.backed_var_to_val
        if not expr.free_symbols <= values.keys():
            return None
        return kind(expr.xreplace({symbol: values[symbol] for symbol in expr.free_symbols}))
