"""Gives the dynamic sizes of a captured graph the ranges that the user asked for, if they hold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._guards import detect_fake_mode
from torch.export.dynamic_shapes import _combine_args, _tree_map_with_path
from torch.fx import GraphModule
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from ..graph.size_relations import linear
from ..graph.sizes import (
    Size,
    hint,
    is_infinite,
    is_unbacked,
)
from ..graph.specs import Call
from .copies import copied
from .untouched import untouched

__all__ = ["bound_ranges", "restore_ranges"]

log = logging.getLogger(__name__)


def restore_ranges(
    gm: GraphModule,
    model: torch.nn.Module,
    call: Call,
    ranges: Mapping[Any, ValueRanges[Any]],
    dynamic_shapes: Any = None,
) -> None:
    """Give the symbols of `gm` the ranges that the user asked for.

    While tracing, torch assumes that every dynamic size is at least 2, and export claims size 1
    without a check. Where the graph differs from `model` at size 1, because it squeezes or
    broadcasts there, the range begins at 2.

    Args:
        call: the example that `gm` was captured with.
        ranges: the exported program's ranges, by symbol.
        dynamic_shapes: as `capture_module` takes it. It is needed because the exported program has
            a minimum of 2 for `Dim.AUTO(min=1)` and `Dim.DYNAMIC(min=1)`.
    """
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(fakes)
    if mode is None or mode.shape_env is None:
        return
    of_inputs = _symbols(fakes)
    from_one = _hinted_from_one(fakes, model, call, dynamic_shapes)
    for symbol, asked in _by_symbol(ranges).items():
        if symbol in from_one and asked.lower == 2:
            asked = ValueRanges(1, asked.upper)
        includes_one = symbol in of_inputs and asked.lower < 2
        if includes_one and not _holds_at_one(gm, model, call, symbol):
            log.warning("at a size of 1 (%s) the model differs: it runs in PyTorch", symbol)
            asked = ValueRanges(2, asked.upper)
        mode.shape_env.var_to_range[symbol] = asked


def bound_ranges(gm: GraphModule, growth: int) -> None:
    """Bound each dynamic size that has no upper bound by `growth` times its example.

    In a graph of Dynamo's the bound becomes a guard, so larger inputs are compiled again.
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
    """Return ranges by symbol: export narrows that of 32*s0 fully, but that of s0 only in part."""
    result = {symbol: asked for symbol, asked in ranges.items() if symbol.is_Symbol}
    for expr, asked in ranges.items():
        parts = None if expr.is_Symbol else linear(expr)
        if parts is not None and parts[0].is_Symbol:
            symbol, factor, offset = parts
            low, high = (int(bound) - offset for bound in (asked.lower, asked.upper))
            result[symbol] = ValueRanges(-(-low // factor), high // factor)
    return result


def _hinted_from_one(
    fakes: Sequence[Any], model: torch.nn.Module, call: Call, dynamic_shapes: Any
) -> set[sympy.Symbol]:
    """Return the symbols of sizes whose hint in `dynamic_shapes` has a minimum of at most 1."""
    if not dynamic_shapes:
        return set()
    leaves = pytree.tree_leaves((tuple(call.args), dict(call.kwargs)))
    fake_of = {id(leaf): fake for leaf, fake in zip(leaves, fakes, strict=True)}
    found: set[sympy.Symbol] = set()

    def note(_: Any, value: Any, shape: Any) -> None:
        fake = fake_of.get(id(value))
        if not isinstance(fake, torch.Tensor) or not isinstance(shape, (dict, list, tuple)):
            return
        sizes: Sequence[Size] = fake.shape
        for dim, wanted in shape.items() if isinstance(shape, dict) else enumerate(shape):
            low, size = getattr(wanted, "min", None), sizes[dim]
            if low is not None and low < 2 and isinstance(size, torch.SymInt):
                found.add(size.node.expr)

    arguments: Any = _combine_args(model, tuple(call.args), dict(call.kwargs))
    if isinstance(dynamic_shapes, (tuple, list)):
        arguments = type(dynamic_shapes)(arguments.values())
    _tree_map_with_path(note, arguments, dynamic_shapes, tree_name="inputs")
    return found


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
    """Return whether graph and model agree on the example cut down to where `symbol` is 1."""
    small = _example_at_one(gm, call, symbol)
    if small is None:
        return False
    leaves = pytree.tree_leaves((small.args, small.kwargs))
    shaped = _ShapesAtOne(gm, symbol)
    try:
        with torch.no_grad():
            with untouched(model, gm, leaves):
                expected = _values(model(*small.args, **small.kwargs))
            with untouched(model, gm, leaves):
                actual = _values(shaped.run(*leaves, enable_io_processing=False))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3, equal_nan=True)
    except Exception as error:  # Any failure means that the graph does not hold at size 1.
        log.debug("at %s = 1: %s", symbol, error)
        return False
    return True


def _values(result: Any) -> list[Any]:
    """Return copies of the outputs, one of which may be a buffer that is restored later."""
    return pytree.tree_leaves(copied(result))


class _ShapesAtOne(torch.fx.Interpreter):
    """Runs a graph where a symbol is 1, and raises if a shape is not the traced one."""

    def __init__(self, gm: GraphModule, symbol: sympy.Symbol) -> None:
        super().__init__(gm)
        self._symbol = symbol

    def run_node(self, n: torch.fx.Node) -> Any:
        result, fake = super().run_node(n), n.meta.get("val")
        # A node that updates a buffer has no value.
        if isinstance(result, torch.Tensor) and fake is not None:
            traced = tuple(
                actual if is_unbacked(size) else _size_at_one(size, self._symbol)
                for size, actual in zip(fake.shape, result.shape, strict=True)
            )
            if tuple(result.shape) != traced:
                raise ValueError(f"{n.name} has shape {tuple(result.shape)}, traced {traced}")
        return result


def _example_at_one(gm: GraphModule, call: Call, symbol: sympy.Symbol) -> Call | None:
    """Return the example cut down to where `symbol` is 1, or None if a tensor is too small."""
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
