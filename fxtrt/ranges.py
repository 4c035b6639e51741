"""Gives the dynamic sizes of a captured graph the ranges that were asked for, where they hold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._guards import detect_fake_mode
from torch.fx import GraphModule
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from .calls import Call
from .relations import linear
from .shapes import Size, hint, is_infinite, is_unbacked

__all__ = ["bound_ranges", "restore_ranges"]

log = logging.getLogger(__name__)


def restore_ranges(
    gm: GraphModule, model: torch.nn.Module, call: Call, ranges: Mapping[Any, ValueRanges[Any]]
) -> None:
    """Let `gm`'s symbols range as the user asked.

    While tracing, torch takes every dynamic size for at least 2, and export promises the rest
    unseen. A graph that answers otherwise than `model` at size 1 (it squeezes, it broadcasts) is
    kept to 2 and more.

    Args:
        call: the example that `gm` was captured with.
        ranges: by symbol, as the exported program has them.
    """
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(fakes)
    if mode is None or mode.shape_env is None:
        return
    of_inputs = _symbols(fakes)
    for symbol, asked in _by_symbol(ranges).items():
        includes_one = symbol in of_inputs and asked.lower < 2
        if includes_one and not _holds_at_one(gm, model, call, symbol):
            log.warning("at a size of 1 (%s) the model differs: it runs in PyTorch", symbol)
            asked = ValueRanges(2, asked.upper)
        mode.shape_env.var_to_range[symbol] = asked


def bound_ranges(gm: GraphModule, growth: int) -> None:
    """Give each dynamic size without an upper bound `growth` times its example as the bound.

    In a graph of Dynamo's the bound becomes one of its guards: larger inputs are compiled again.
    """
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(fakes)
    environment = None if mode is None else mode.shape_env
    for symbol in _symbols(fakes) if environment is not None else ():
        assert environment is not None
        known, example = environment.var_to_range[symbol], environment.backed_var_to_val.get(symbol)
        if example is not None and is_infinite(known.upper):
            bound = max(int(known.lower), growth * int(example))
            environment.var_to_range[symbol] = ValueRanges(known.lower, bound)


def _by_symbol(ranges: Mapping[Any, ValueRanges[Any]]) -> dict[sympy.Symbol, ValueRanges[Any]]:
    """The ranges of the symbols themselves; export gives that of 32*s0 in full, of s0 in part."""
    result = {symbol: asked for symbol, asked in ranges.items() if symbol.is_Symbol}
    for expr, asked in ranges.items():
        parts = None if expr.is_Symbol else linear(expr)
        if parts is not None and parts[0].is_Symbol:
            symbol, factor, offset = parts
            low, high = (int(bound) - offset for bound in (asked.lower, asked.upper))
            result[symbol] = ValueRanges(-(-low // factor), high // factor)
    return result


def _symbols(fakes: Sequence[Any]) -> set[sympy.Symbol]:
    sizes: list[Size] = []
    for fake in fakes:
        if isinstance(fake, torch.Tensor):
            sizes += fake.shape
    dynamic = [size.node.expr for size in sizes if isinstance(size, torch.SymInt)]
    return {symbol for expr in dynamic for symbol in expr.free_symbols}


def _holds_at_one(
    gm: GraphModule, model: torch.nn.Module, call: Call, symbol: sympy.Symbol
) -> bool:
    """Whether graph and model agree where `symbol` is 1 and all else is as in the example."""
    small = _example_at_one(gm, call, symbol)
    if small is None:
        return False
    try:
        with torch.no_grad():
            expected = model(*small.args, **small.kwargs)
            leaves = pytree.tree_leaves((small.args, small.kwargs))
            actual = _ShapesAtOne(gm, symbol).run(*leaves, enable_io_processing=False)
        expected = pytree.tree_leaves(expected)
        actual = pytree.tree_leaves(actual)
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3, equal_nan=True)
    except Exception as error:  # Whatever fails at size 1 does not hold there.
        log.debug("at %s = 1: %s", symbol, error)
        return False
    return True


class _ShapesAtOne(torch.fx.Interpreter):
    """Runs a graph where a symbol is 1, and insists on the shapes that were traced."""

    def __init__(self, gm: GraphModule, symbol: sympy.Symbol) -> None:
        super().__init__(gm)
        self._symbol = symbol

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            traced = tuple(
                actual if is_unbacked(size) else _size_at_one(size, self._symbol)
                for size, actual in zip(n.meta["val"].shape, result.shape, strict=True)
            )
            if tuple(result.shape) != traced:
                raise ValueError(f"{n.name} has shape {tuple(result.shape)}, traced {traced}")
        return result


def _example_at_one(gm: GraphModule, call: Call, symbol: sympy.Symbol) -> Call | None:
    """The example cut down to where `symbol` is 1; None where that needs larger tensors."""
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    leaves, tree = pytree.tree_flatten((tuple(call.args), dict(call.kwargs)))
    small: list[Any] = []
    for leaf, fake in zip(leaves, fakes, strict=True):
        if not isinstance(leaf, torch.Tensor):
            small.append(leaf)
            continue
        cut = leaf.clone()
        for dim, size in enumerate(fake.shape):
            wanted = _size_at_one(size, symbol)
            if wanted > cut.shape[dim]:
                return None
            cut = cut.narrow(dim, 0, wanted)
        small.append(cut)
    args, kwargs = pytree.tree_unflatten(small, tree)
    return Call(args, kwargs)


def _size_at_one(size: Any, symbol: sympy.Symbol) -> int:
    if not isinstance(size, torch.SymInt) or symbol not in size.node.expr.free_symbols:
        return hint(size)
    environment = size.node.shape_env
    assert environment is not None
    others = {other: environment.backed_var_to_val[other] for other in size.node.expr.free_symbols}
    return int(size.node.expr.xreplace(others | {symbol: sympy.Integer(1)}))
