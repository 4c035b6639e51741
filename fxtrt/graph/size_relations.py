"""Compile a captured graph's shape guards into a fast predicate over input sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import sympy
import torch
from torch._guards import detect_fake_mode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP
from torch.utils._sympy.printers import PythonPrinter

from .sizes import is_static

__all__ = ["SizeRelations", "linear"]


@dataclass(frozen=True, slots=True)
class SizeRelations:
    """The relations between sizes that a graph was traced with, as a compiled expression.

    Tracing adds a relation where a model branches on a size ("is it even?") and where two inputs
    share a size; ranges alone cannot express these.

    An input is a tensor, or an integer that may vary, which counts as a size.

    sources: symbol, input, dimension, factor and offset: the size is factor * symbol + offset.
    test:    an expression over the symbols and `sizes[input][dimension]`.
    """

    sources: tuple[tuple[str, int, int, int, int], ...]
    test: CodeType

    @classmethod
    def of(cls, graph: GraphModule) -> SizeRelations | None:
        """Return the relations of a captured graph, or None if every size is static."""
        fakes = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
        mode = detect_fake_mode([fake for fake in fakes if isinstance(fake, torch.Tensor)])
        sizes = [
            (i, dim, size.node.expr)
            for i, shape in enumerate(_shapes(fakes))
            for dim, size in enumerate(shape)
            if isinstance(size, torch.SymInt)
        ]
        if mode is None or mode.shape_env is None or not sizes:
            return None
        sources = _sources(sizes)
        known = {name for name, *_ in sources}
        printer = PythonPrinter()
        tests = [f"sizes[{i}][{dim}] == {printer.doprint(expr)}" for i, dim, expr in sizes]
        for guard in mode.shape_env.guards:
            expr = mode.shape_env.replace(guard.expr)
            if {str(symbol) for symbol in expr.free_symbols} <= known:
                tests.append(printer.doprint(expr))
        if any(str(symbol) not in known for _, _, expr in sizes for symbol in expr.free_symbols):
            # The value of a symbol cannot be read off any input, so no call is sure to fit.
            tests.append("False")
        text = " and ".join(f"({test})" for test in dict.fromkeys(tests))
        return cls(sources, compile(text, "<size relations>", "eval"))

    def hold(self, inputs: Sequence[torch.Tensor | int]) -> bool:
        """Return whether the graph is valid for inputs of these sizes, and for these integers."""
        sizes = [(value,) if isinstance(value, int) else value.shape for value in inputs]
        values: dict[str, Any] = {
            name: (sizes[i][dim] - offset) // factor
            for name, i, dim, factor, offset in self.sources
        }
        return bool(eval(self.test, SYMPY_INTERP, values | {"sizes": sizes}))


def _shapes(fakes: Sequence[Any]) -> Iterator[Sequence[int | torch.SymInt]]:
    for fake in fakes:
        if isinstance(fake, torch.Tensor):
            yield fake.shape
        elif isinstance(fake, torch.SymInt) and not is_static(fake):
            yield (fake,)


def linear(expr: sympy.Expr) -> tuple[sympy.Expr, int, int] | None:
    """Split an expression like 32*s0 + 1 or 64*(s0 // 8) + 64 into term, factor and offset.

    Returns:
        None if the expression is a number, or falls as the term grows.
    """
    offset, rest = expr.as_coeff_Add()
    factor, term = rest.as_coeff_Mul()
    if not (factor.is_Integer and offset.is_Integer and factor > 0) or term.is_number:
        return None
    if factor == 1:
        return term, 1, int(offset)
    term, inner, shift = linear(term) or (term, 1, 0)
    return term, int(factor) * inner, int(factor) * shift + int(offset)


def _sources(
    sizes: Sequence[tuple[int, int, sympy.Expr]],
) -> tuple[tuple[str, int, int, int, int], ...]:
    found: dict[str, tuple[str, int, int, int, int]] = {}
    for i, dim, expr in sizes:
        parts = linear(expr)
        if parts is not None and parts[0].is_Symbol:
            symbol, factor, offset = parts
            found.setdefault(str(symbol), (str(symbol), i, dim, factor, offset))
    return tuple(found.values())
